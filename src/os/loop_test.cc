#include "os/loop.hh"

#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <csignal>
#include <functional>
#include <thread>

namespace godwit::os {
namespace {

struct Pipe {
  Pipe() {
    int ends[2];
    EXPECT_EQ(::pipe(ends), 0);
    read.reset(ends[0]);
    write.reset(ends[1]);
  }
  Fd read, write;
};

TEST(Loop, TimersRunInOrderAndCancelledOnesDoNot) {
  Loop loop;
  std::string order;
  const Instant now = loop.now();  // of a busy host a millisecond may pass between two lines
  const auto late = loop.at(now + milliseconds(2), [&] { order += "b", loop.stop(); });
  const auto early = loop.at(now + milliseconds(1), [&] { order += "a"; });
  auto cancelled = loop.after(milliseconds(1), [&] { order += "x"; });
  cancelled.reset();
  loop.run();
  EXPECT_EQ(order, "ab");
}

TEST(Loop, ATimerThatSetsItselfAgainAtOnceDoesNotStarveTheRest) {
  Loop loop;
  Loop::Timer again;
  int runs = 0;
  std::function<void()> task = [&] {
    ++runs;
    again = loop.at(loop.now() - seconds(1), [&] { task(); });
  };
  task();
  loop.run_once(Nanoseconds(0));
  EXPECT_EQ(runs, 2);
}

TEST(Loop, AHandlerMayEndItsOwnWatch) {
  Loop loop;
  const Pipe pipe;
  int calls = 0;
  Loop::Watch watch;
  watch = loop.watch(pipe.read, EPOLLIN, [&](std::uint32_t) {
    ++calls;
    watch.reset();
    loop.stop();
  });
  ASSERT_EQ(::write(pipe.write.number(), "x", 1), 1);
  loop.run();
  loop.run_once(Nanoseconds(0));
  EXPECT_EQ(calls, 1);
}

TEST(Loop, PostedTasksOfAnotherThreadRunHere) {
  Loop loop;
  std::thread other([&] { loop.post([&] { loop.stop(); }); });
  loop.run();
  other.join();
}

TEST(Loop, SignalsArriveAsCalls) {
  Loop loop;
  int got = 0;
  const auto watch = loop.on_signals({SIGUSR1}, [&](int signal) {
    got = signal;
    loop.stop();
  });
  ::kill(::getpid(), SIGUSR1);
  loop.run();
  EXPECT_EQ(got, SIGUSR1);
}

}  // namespace
}  // namespace godwit::os
