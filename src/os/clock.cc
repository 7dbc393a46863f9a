#include "os/clock.hh"

#include <ctime>

namespace godwit::os {

Instant MonotonicSystemClock::now() const {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return Instant(seconds(time.tv_sec) + Nanoseconds(time.tv_nsec));
}

}  // namespace godwit::os
