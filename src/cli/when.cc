#include "cli/when.hh"

#include <array>

#include "base/units.hh"

namespace godwit::cli {
namespace {

// strptime(3) that insists on the whole text.
bool matches(const std::string& text, const char* format, std::tm& time) {
  const char* end = ::strptime(text.c_str(), format, &time);
  return end != nullptr && *end == '\0';
}

std::tm local(std::time_t time) {
  std::tm out{};
  ::localtime_r(&time, &out);
  return out;
}

// Today at that time, or tomorrow when it has passed.
std::time_t next_at(const std::tm& clock, std::time_t now) {
  for (int day = 0;; ++day) {
    std::tm time = local(now);
    time.tm_mday += day;
    time.tm_hour = clock.tm_hour;
    time.tm_min = clock.tm_min;
    time.tm_sec = 0;
    time.tm_isdst = -1;
    if (const std::time_t at = std::mktime(&time); at > now) return at;
  }
}

Result<std::time_t> parse_clock_time(const std::string& text, std::time_t now) {
  if (std::tm clock{}; matches(text, "%H:%M", clock)) return next_at(clock, now);
  for (const char* format : std::array{"%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%MZ"}) {
    std::tm utc{};
    if (matches(text, format, utc)) return ::timegm(&utc);
  }
  for (const char* format : std::array{"%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M"}) {
    std::tm date{};
    date.tm_isdst = -1;
    if (matches(text, format, date)) return std::mktime(&date);
  }
  return fail("'{}' is not a time: write +10min, 22:30 or 2026-11-21T22:30:00Z", text);
}

}  // namespace

Result<std::time_t> parse_when(std::string_view text, std::time_t now) {
  if (text.starts_with('+')) {
    const auto delay = parse_duration(text.substr(1));
    if (!delay) return std::unexpected(delay.error());
    return now + duration_cast<seconds>(*delay).count();
  }
  const auto at = parse_clock_time(std::string(text), now);
  if (at && *at <= now) return fail("'{}' has passed", text);
  return at;
}

}  // namespace godwit::cli
