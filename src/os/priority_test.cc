#include "os/priority.hh"

#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <ctime>
#include <thread>

#include "os/capability.hh"

namespace godwit::os {
namespace {

using std::chrono::milliseconds;

TEST(ThreadPriorityTest, AThirdOfACpuIsTheMostAndAQuarterTheWayBack) {
  EXPECT_TRUE(may_go_first(true, milliseconds(33), milliseconds(100)));
  EXPECT_FALSE(may_go_first(true, milliseconds(34), milliseconds(100)));
  EXPECT_FALSE(may_go_first(false, milliseconds(25), milliseconds(100)));
  EXPECT_TRUE(may_go_first(false, milliseconds(24), milliseconds(100)));
}

int policy() { return ::sched_getscheduler(0) & ~SCHED_RESET_ON_FORK; }
int nice_value() { return ::getpriority(PRIO_PROCESS, static_cast<id_t>(::gettid())); }

double cpu_seconds() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

TEST(ThreadPriorityTest, AThreadThatTakesMuchGoesFirstNoLonger) {
  if (!has_capability(CAP_SYS_NICE)) GTEST_SKIP() << "needs CAP_SYS_NICE";
  std::thread([] {
    const Instant begun{};
    ThreadPriority priority(begun);
    EXPECT_EQ(policy(), SCHED_RR);
    const double before = cpu_seconds();
    while (cpu_seconds() - before < 0.05) {
    }
    const Instant now = begun + milliseconds(100);
    priority.adapt(now);
    EXPECT_EQ(policy(), SCHED_OTHER);
    EXPECT_EQ(nice_value(), -5);
    priority.adapt(now + milliseconds(99));
    EXPECT_EQ(policy(), SCHED_OTHER) << "it has not looked yet";
    priority.adapt(now + std::chrono::hours(1));
    EXPECT_EQ(policy(), SCHED_RR);
  }).join();
}

}  // namespace
}  // namespace godwit::os
