#include "os/priority.hh"

#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>
#include <ctime>
#include <fstream>
#include <string>

namespace godwit::os {
namespace {

constexpr int kNice = -5;
constexpr int kNicest = 19;

Nanoseconds cpu_time() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return std::chrono::seconds(time.tv_sec) + Nanoseconds(time.tv_nsec);
}

}  // namespace

ThreadPriority::ThreadPriority(Instant now) : since_(now), used_(cpu_time()) {
  ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kNice);
  set(true);
}

Nanoseconds waited_for_cpu(pid_t thread) {
  std::int64_t ran = 0, waited = 0;
  std::ifstream("/proc/self/task/" + std::to_string(thread) + "/schedstat") >> ran >> waited;
  return Nanoseconds(waited);
}

void yield_to_all() { ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kNicest); }

void ThreadPriority::look(Instant now) {
  const Nanoseconds used = cpu_time();
  set(may_go_first(first_, used - used_, now - since_));
  since_ = now;
  used_ = used;
}

void ThreadPriority::set(bool first) {
  if (first == first_) return;
  const sched_param parameters{.sched_priority = first ? 1 : 0};
  ::sched_setscheduler(0, (first ? SCHED_RR : SCHED_OTHER) | SCHED_RESET_ON_FORK, &parameters);
  first_ = first;
}

}  // namespace godwit::os
