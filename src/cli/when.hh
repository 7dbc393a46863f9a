#pragma once
// The TIME of --at: "+10min", "22:30" (the next one, local), "2026-11-21T22:30" (local) or
// "2026-11-21T22:30:00Z".
#include <ctime>
#include <string>
#include <string_view>

#include "base/result.hh"

namespace godwit::cli {

// Seconds since 1970; `now` as time(2) gives it. A time that has passed is an error.
Result<std::time_t> parse_when(std::string_view text, std::time_t now);

}  // namespace godwit::cli
