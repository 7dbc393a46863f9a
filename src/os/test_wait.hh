#pragma once
// For tests: runs a loop until something is so, with a deadline that only a failing test meets.
#include <functional>

#include "os/loop.hh"

namespace godwit::os {

constexpr Nanoseconds kTestPatience = seconds(20);

// False when `done` was still false at the deadline.
template <class Done>
bool run_until(Loop& loop, Done&& done) {
  const Instant deadline = loop.now() + kTestPatience;
  while (!done()) {
    if (loop.now() >= deadline) return false;
    loop.run_once(milliseconds(20));
  }
  return true;
}

}  // namespace godwit::os
