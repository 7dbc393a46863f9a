#pragma once
// What a component tells, given to another.
#include <gtest/gtest.h>

#include "net/net_testing.hh"
#include "net/state.hh"

namespace godwit::net {

inline constexpr std::size_t kMost = 256 << 10;

// Digits with spaces between fields.
inline std::string hex(std::string_view spaced) {
  std::string digits(spaced);
  std::erase(digits, ' ');
  return digits;
}

// Until there is nothing more to tell now.
inline std::vector<Bytes> rest_of(Component& from, Instant now, std::size_t most = kMost) {
  std::vector<Bytes> all;
  while (true) {
    Bytes message = from.take_state(most, now);
    if (message.empty()) {
      EXPECT_EQ(from.untold(), 0U);
      return all;
    }
    all.push_back(std::move(message));
  }
}
inline std::vector<Bytes> all_of(Component& from, Instant now, std::size_t most = kMost) {
  from.begin_state();
  auto all = rest_of(from, now, most);
  from.end_state();
  return all;
}
inline void load(Component& to, const std::vector<Bytes>& messages, Instant now) {
  for (const Bytes& each : messages) {
    const auto done = to.load_state(each, now);
    ASSERT_TRUE(done) << done.error().text << ": " << to_hex(each);
  }
}

}  // namespace godwit::net
