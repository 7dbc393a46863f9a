#include "codec/level_control.hh"

#include <gtest/gtest.h>

#include <functional>

namespace godwit::codec {
namespace {

// A pipe of an encoder and a lane, in milliseconds per MiB of memory at the present level.
struct Pipe {
  LevelControl control{1};
  Instant now{};
  int changes = 0;

  void run(Nanoseconds time, const std::function<double(int)>& lane_ms) {
    for (const Instant end = now + time; now < end;) {
      const double encode = 2.5 * control.level();
      const double lane = lane_ms(control.level());
      const double period = std::max(encode, lane);
      for (int i = 0; i < 10; ++i) {
        now += Nanoseconds(static_cast<std::int64_t>(period * 1e5));
        changes += control.pass(now, i < 10 * encode / period, i < 10 * lane / period);
      }
    }
  }
};

TEST(LevelControl, AThinLinkGetsTheBestLevel) {
  Pipe pipe;
  pipe.run(seconds(60), [](int level) { return 100.0 - level; });
  EXPECT_EQ(pipe.control.level(), 9);
}

TEST(LevelControl, AFastLinkGetsTheFastest) {
  Pipe pipe;
  pipe.control = LevelControl(5);
  pipe.run(seconds(60), [](int) { return 0.25; });
  EXPECT_EQ(pipe.control.level(), 1);
}

TEST(LevelControl, WhereTheyAreEvenItStays) {
  Pipe pipe;
  pipe.run(seconds(60), [](int) { return 5.0; });
  EXPECT_EQ(pipe.control.level(), 2);
  EXPECT_EQ(pipe.changes, 1);
}

TEST(LevelControl, ItChangesLessAndLess) {
  Pipe pipe;  // one level is too slow for the link, the one below too fast
  pipe.run(seconds(120), [](int level) { return level <= 2 ? 20.0 : 3.0; });
  EXPECT_GE(pipe.changes, 4);
  EXPECT_LE(pipe.changes, 20);
}

TEST(LevelControl, AnIdleGuestSaysNothing) {
  LevelControl control(3);
  Instant now{};
  for (int i = 0; i < 10'000; ++i) EXPECT_FALSE(control.pass(now += milliseconds(1), false, false));
}

}  // namespace
}  // namespace godwit::codec
