#include "base/utc_text.hh"

#include <array>
#include <ctime>

namespace godwit {
namespace {

constexpr const char* kForm = "%Y-%m-%dT%H:%M:%SZ";

}  // namespace

std::string utc_text(std::int64_t seconds_since_1970) {
  const std::time_t time = seconds_since_1970;
  std::tm utc{};
  ::gmtime_r(&time, &utc);
  std::array<char, 32> text{};
  const std::size_t size = std::strftime(text.data(), text.size(), kForm, &utc);
  return {text.data(), size};
}

std::optional<std::int64_t> parse_utc(const std::string& text) {
  std::tm utc{};
  const char* end = ::strptime(text.c_str(), kForm, &utc);
  if (end == nullptr || *end != '\0') return std::nullopt;
  return ::timegm(&utc);
}

}  // namespace godwit
