#include "os/priority.hh"

#include <gtest/gtest.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <atomic>
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

TEST(ThreadPriorityTest, ThreadsThatShareACpuWaitForIt) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(::sched_getcpu(), &one);
  std::atomic<int> begun = 0, ended = 0;
  std::array<Nanoseconds, 2> waited{};
  std::array<std::thread, 2> threads;
  for (std::size_t i = 0; i < threads.size(); ++i) {
    threads[i] = std::thread([&, i] {
      ::pthread_setaffinity_np(::pthread_self(), sizeof one, &one);
      ++begun;
      while (begun < 2) {
      }
      const double used = cpu_seconds();
      while (cpu_seconds() - used < 0.05) {
      }
      ++ended;
      while (ended < 2) {
      }
      waited[i] = waited_for_cpu(::gettid());
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(waited[0] + waited[1], milliseconds(40));
}

}  // namespace
}  // namespace godwit::os
