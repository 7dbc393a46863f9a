#pragma once
// A thread's share of a CPU that others want too, sched(7).
#include <sys/types.h>

#include "base/units.hh"

namespace godwit::os {

// Whether a thread that took `used` of the last `elapsed` goes first; `first`: it did so far.
constexpr bool may_go_first(bool first, Nanoseconds used, Nanoseconds elapsed) {
  return used * (first ? 3 : 4) < elapsed;
}

// Lets the calling thread run before all ordinary work of the host (SCHED_RR) while it takes less
// than a third of a CPU. What makes it take more would starve all else: it then goes before its own
// process's other threads only (nice -5), until it takes less than a quarter. Where it may not
// (CAP_SYS_NICE) it stays as it is.
//
// A nice value alone does not do: with the kernel's autogroups it counts within a session, and a
// thread that works seldom gets next to nothing of its session's share where another one works
// without a pause.
class ThreadPriority final {
 public:
  explicit ThreadPriority(Instant now);  // by the thread itself, as all of it

  // Call with each piece of work; looks ten times a second.
  void adapt(Instant now) {
    if (now - since_ >= kPeriod) look(now);
  }

 private:
  static constexpr Nanoseconds kPeriod = std::chrono::milliseconds(100);

  void look(Instant now);
  void set(bool first);

  Instant since_;
  Nanoseconds used_;  // of the CPU, until then
  bool first_ = false;
};

// How long a thread of this process has waited for a CPU in all, since others had them
// (/proc/PID/schedstat). Zero where the kernel does not count it.
Nanoseconds waited_for_cpu(pid_t thread);

// The calling thread, and processes that it starts, take what nobody else wants.
void yield_to_all();

}  // namespace godwit::os
