#pragma once
// Times as text of UTC (RFC 3339): "2026-11-21T22:30:00Z".
#include <cstdint>
#include <optional>
#include <string>

namespace godwit {

std::string utc_text(std::int64_t seconds_since_1970);
std::optional<std::int64_t> parse_utc(const std::string& text);

}  // namespace godwit
