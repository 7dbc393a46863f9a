// The settings of a link by name, one row each: shared by the file, `lab set` and the control
// socket.
#include <array>
#include <charconv>

#include "lab/config.hh"

namespace godwit::lab {
namespace {

constexpr std::uint16_t kMinMtu = 576;   // RFC 791: what every IPv4 host must accept
constexpr std::uint16_t kMaxMtu = 9000;  // jumbo frames; the TAPs' mtu
constexpr Nanoseconds kMaxDelay = seconds(10);
constexpr ByteCount kMaxQueue{256U << 20U};  // as kMaxInFlightBytes of lab/direction.hh

template <class T>
Result<> assign(T& to, const Result<T>& value) {
  if (!value) return std::unexpected(value.error());
  to = *value;
  return {};
}

Result<> set_rate(LinkQuality& quality, const std::string& value) {
  if (value == "unlimited") return quality.rate.reset(), Result<>{};
  const auto rate = parse_bit_rate(value);
  if (!rate) return std::unexpected(rate.error());
  if (rate->bits_per_second == 0) return fail("a rate of 0 passes nothing: use `lab cut` instead");
  quality.rate = *rate;
  return {};
}

Result<> set_time(Nanoseconds& to, const std::string& value) {
  const auto time = parse_duration(value);
  if (time && *time > kMaxDelay)
    return fail("'{}' is over the limit of {}", value, to_text(kMaxDelay));
  return assign(to, time);
}

Result<> set_queue(LinkQuality& quality, const std::string& value) {
  if (const auto time = parse_duration(value)) {
    quality.queue = {.time = *time, .size = {}};
    return {};
  }
  const auto size = parse_byte_count(value);
  if (!size) return fail("'{}' is not a queue: write a time like 40ms or a size like 1MiB", value);
  if (size->bytes > kMaxQueue.bytes)
    return fail("'{}' is over the limit of {}", value, to_text(kMaxQueue));
  quality.queue = {.time = std::nullopt, .size = *size};
  return {};
}

Result<> set_mtu(LinkQuality& quality, const std::string& value) {
  std::uint16_t mtu = 0;
  const char* const end = value.data() + value.size();
  const auto [at, error] = std::from_chars(value.data(), end, mtu);
  if (error != std::errc{} || at != end || mtu < kMinMtu || mtu > kMaxMtu) {
    return fail("'{}' is not an mtu: write bytes from {} to {}, like 1500", value, kMinMtu,
                kMaxMtu);
  }
  quality.mtu = mtu;
  return {};
}

Result<> set_choice(bool& to, const std::string& value, std::string_view no, std::string_view yes) {
  if (value != no && value != yes) return fail("'{}' is neither {} nor {}", value, no, yes);
  to = value == yes;
  return {};
}

struct Setting {
  std::string_view key;
  Result<> (*set)(LinkQuality&, const std::string&);
};

constexpr std::array kSettings = {
    Setting{"rate", set_rate},
    Setting{"delay", [](LinkQuality& q, const std::string& v) { return set_time(q.delay, v); }},
    Setting{"jitter", [](LinkQuality& q, const std::string& v) { return set_time(q.jitter, v); }},
    Setting{"loss", [](LinkQuality& q,
                       const std::string& v) { return assign(q.loss, parse_percentage(v)); }},
    Setting{"queue", set_queue},
    Setting{"mtu", set_mtu},
    Setting{"reorder",
            [](LinkQuality& q, const std::string& v) {
              return set_choice(q.reorder, v, "false", "true");
            }},
    Setting{"too-big",
            [](LinkQuality& q, const std::string& v) {
              return set_choice(q.mtu_silent, v, "icmp", "silent");
            }},
};

}  // namespace

Result<> set_link_quality(LinkQuality& quality, std::string_view key, const std::string& value) {
  std::string known;
  for (const Setting& setting : kSettings) {
    if (setting.key == key) return setting.set(quality, value);
    known += fmt::format("{}{}", known.empty() ? "" : ", ", setting.key);
  }
  return fail("a link has no setting '{}': use one of {}", key, known);
}

}  // namespace godwit::lab
