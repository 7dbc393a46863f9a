#pragma once
// How often something that strangers can bring about is logged: the first few of each interval, and
// then how many more there were.
#include <cstdint>
#include <optional>

#include "base/units.hh"

namespace godwit::agent {

class LogLimit final {
 public:
  static constexpr int kPerInterval = 10;
  static constexpr Nanoseconds kInterval = seconds(10);

  // Nothing: stay silent. Else how many were passed over since the last line.
  std::optional<std::uint64_t> may_log(Instant now) {
    if (now - interval_start_ >= kInterval) {
      interval_start_ = now;
      logged_ = 0;
    }
    if (logged_ >= kPerInterval) return ++silent_, std::nullopt;
    ++logged_;
    return std::exchange(silent_, 0);
  }

 private:
  Instant interval_start_{};
  int logged_ = kPerInterval;  // the clock starts anywhere
  std::uint64_t silent_ = 0;
};

}  // namespace godwit::agent
