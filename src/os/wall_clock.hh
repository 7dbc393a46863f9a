#pragma once
// The time of day, for records and certificates: it may be set, so nothing waits by it.
#include <chrono>

#include "base/units.hh"

namespace godwit::os {

// Since 1970.
inline milliseconds wall_clock() {
  return duration_cast<milliseconds>(std::chrono::system_clock::now().time_since_epoch());
}
inline std::int64_t wall_clock_seconds() { return duration_cast<seconds>(wall_clock()).count(); }

}  // namespace godwit::os
