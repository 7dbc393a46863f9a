#pragma once
// Quantities with their units in the type, and the only place where units are parsed and printed.
// Bare numbers are refused (design 13): "400mbit" as tc(8) writes it, "512MiB", "300ms".
#include <chrono>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hh"

namespace godwit {

using Nanoseconds = std::chrono::nanoseconds;
using std::chrono::duration_cast;
using std::chrono::milliseconds;
using std::chrono::seconds;

// A reading of the monotonic clock of one host; meaningless on another. The core is handed these.
struct MonotonicClock {
  using duration = Nanoseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<MonotonicClock>;
  static constexpr bool is_steady = true;
};
using Instant = MonotonicClock::time_point;

struct ByteCount {
  std::uint64_t bytes = 0;
  auto operator<=>(const ByteCount&) const = default;
};

struct BitRate {
  std::uint64_t bits_per_second = 0;
  auto operator<=>(const BitRate&) const = default;
  double bytes_per_second() const { return static_cast<double>(bits_per_second) / 8.0; }
};

// "512MiB", "64KiB", "2GiB", "1500B"; powers of 1024 with i, of 1000 without (kB, MB, GB).
Result<ByteCount> parse_byte_count(std::string_view text);
// tc(8): "400mbit", "1gbit", "64kbit", "100bit".
Result<BitRate> parse_bit_rate(std::string_view text);
// "300ms", "10s", "250us", "5min", "1h"; fractions allowed ("1.5s").
Result<Nanoseconds> parse_duration(std::string_view text);
// "0.1%" -> 0.001.
Result<double> parse_percentage(std::string_view text);

std::string to_text(ByteCount count);       // "512 MiB", "1.3 GiB"
std::string to_text(BitRate rate);          // "400 Mbit/s"
std::string to_text(Nanoseconds duration);  // "1.23 s", "45.6 ms"
double to_ms(Nanoseconds duration);

}  // namespace godwit
