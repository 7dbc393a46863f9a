#include "os/priority.hh"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <thread>

#include "os/clock.hh"

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

TEST(ThreadPriorityTest, AThreadThatTakesMuchGoesFirstNoLonger) {
  std::thread([] {
    const Instant begun = MonotonicSystemClock().now();
    ThreadPriority priority(begun);
    if (policy() != SCHED_RR) GTEST_SKIP() << "needs CAP_SYS_NICE";
    Instant now = begun;
    while (now - begun < milliseconds(110)) now = MonotonicSystemClock().now();
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
