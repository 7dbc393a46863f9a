#include "base/units.hh"

#include <array>
#include <charconv>
#include <cmath>
#include <span>

namespace godwit {
namespace {

struct Unit {
  std::string_view name;
  double factor;
};

// "12.5ms" -> 12.5 * factor of "ms"; what is the object named in errors.
Result<double> parse_with_unit(std::string_view text, std::span<const Unit> units,
                               std::string_view what, std::string_view example) {
  double number = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  if (error != std::errc{} || number < 0 || !std::isfinite(number)) {
    return fail("'{}' is not a {}: write a number and its unit, like {}", text, what, example);
  }
  const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  for (const Unit& candidate : units) {
    if (candidate.name == unit) return number * candidate.factor;
  }
  if (unit.empty()) return fail("'{}' has no unit: write the {} like {}", text, what, example);
  return fail("'{}': unknown unit '{}' of a {}: write it like {}", text, unit, what, example);
}

constexpr double kMaxCount = 9.0e18;  // below 2^63, so that sums do not overflow

Result<std::uint64_t> parse_count(std::string_view text, std::span<const Unit> units,
                                  std::string_view what, std::string_view example) {
  const auto value = parse_with_unit(text, units, what, example);
  if (!value) return std::unexpected(value.error());
  if (*value > kMaxCount) return fail("'{}' is too large a {}", text, what);
  return static_cast<std::uint64_t>(std::llround(*value));
}

// The largest unit that leaves a number >= 1, with three significant digits at most.
std::string scaled(double value, std::span<const Unit> descending) {
  for (const Unit& unit : descending) {
    const double number = value / unit.factor;
    if (number < 0.9995 && &unit != &descending.back()) continue;
    if (number >= 99.95 || number == std::floor(number)) {
      return fmt::format("{:.0f} {}", number, unit.name);
    }
    return fmt::format("{:.{}f} {}", number, number >= 9.995 ? 1 : 2, unit.name);
  }
  return {};
}

constexpr double kKi = 1024.0;
constexpr std::array kByteUnits = {Unit{"B", 1},
                                   Unit{"KiB", kKi},
                                   Unit{"MiB", kKi* kKi},
                                   Unit{"GiB", kKi* kKi* kKi},
                                   Unit{"TiB", kKi* kKi* kKi* kKi},
                                   Unit{"kB", 1e3},
                                   Unit{"MB", 1e6},
                                   Unit{"GB", 1e9},
                                   Unit{"TB", 1e12}};
constexpr std::array kRateUnits = {Unit{"bit", 1}, Unit{"kbit", 1e3}, Unit{"mbit", 1e6},
                                   Unit{"gbit", 1e9}};
constexpr std::array kTimeUnits = {Unit{"ns", 1},    Unit{"us", 1e3},   Unit{"ms", 1e6},
                                   Unit{"s", 1e9},   Unit{"min", 60e9}, Unit{"m", 60e9},
                                   Unit{"h", 3600e9}};

}  // namespace

Result<ByteCount> parse_byte_count(std::string_view text) {
  const auto count = parse_count(text, kByteUnits, "size", "512MiB");
  if (!count) return std::unexpected(count.error());
  return ByteCount{*count};
}

Result<BitRate> parse_bit_rate(std::string_view text) {
  const auto count = parse_count(text, kRateUnits, "rate", "400mbit");
  if (!count) return std::unexpected(count.error());
  return BitRate{*count};
}

Result<Nanoseconds> parse_duration(std::string_view text) {
  const auto count = parse_count(text, kTimeUnits, "duration", "300ms");
  if (!count) return std::unexpected(count.error());
  return Nanoseconds(static_cast<Nanoseconds::rep>(*count));
}

Result<double> parse_percentage(std::string_view text) {
  static constexpr std::array kPercent = {Unit{"%", 0.01}};
  auto value = parse_with_unit(text, kPercent, "percentage", "0.1%");
  if (value && *value > 1.0) return fail("'{}' is more than 100%", text);
  return value;
}

std::string to_text(ByteCount count) {
  static constexpr std::array kUnits = {Unit{"TiB", kKi * kKi * kKi * kKi},
                                        Unit{"GiB", kKi * kKi * kKi}, Unit{"MiB", kKi * kKi},
                                        Unit{"KiB", kKi}, Unit{"B", 1}};
  return scaled(static_cast<double>(count.bytes), kUnits);
}

std::string to_text(BitRate rate) {
  static constexpr std::array kUnits = {Unit{"Gbit/s", 1e9}, Unit{"Mbit/s", 1e6},
                                        Unit{"kbit/s", 1e3}, Unit{"bit/s", 1}};
  return scaled(static_cast<double>(rate.bits_per_second), kUnits);
}

std::string to_text(Nanoseconds duration) {
  static constexpr std::array kUnits = {Unit{"s", 1e9}, Unit{"ms", 1e6}, Unit{"us", 1e3},
                                        Unit{"ns", 1}};
  return scaled(static_cast<double>(duration.count()), kUnits);
}

double to_ms(Nanoseconds duration) { return static_cast<double>(duration.count()) / 1e6; }

}  // namespace godwit
