#include "codec/level_control.hh"

#include <gtest/gtest.h>

#include <functional>

namespace godwit::codec {
namespace {

// A pipe of an encoder and a lane in milliseconds per MiB of memory, at the present level.
struct Pipe {
  LevelControl control{1};
  Instant now{};
  int changes = 0;

  // As much memory as takes `time`, with what both take at each level.
  void run(Nanoseconds time, const std::function<double(int)>& encode_ms,
           const std::function<double(int)>& lane_ms, double saving) {
    for (const Instant end = now + time; now < end;) {
      const double encode = encode_ms(control.level());
      const double lane = lane_ms(control.level());
      const double period = std::max(encode, lane);
      for (int i = 0; i < 10; ++i) {
        now += Nanoseconds(static_cast<std::int64_t>(period * 1e5));
        changes += control.pass(now, i < 10 * encode / period, i < 10 * lane / period, saving);
      }
    }
  }
};

double encode_ms(int level) { return level == 0 ? 0.5 : 5.0 * level; }

TEST(LevelControl, AThinLinkGetsTheBestLevel) {
  Pipe pipe;
  pipe.run(seconds(60), encode_ms, [](int level) { return level == 0 ? 400.0 : 100.0 - level; }, 4);
  EXPECT_EQ(pipe.control.level(), 9);
}

TEST(LevelControl, AFastLinkGetsNone) {
  Pipe pipe;
  pipe.run(seconds(60), encode_ms, [](int level) { return level == 0 ? 1.0 : 0.25; }, 4);
  EXPECT_EQ(pipe.control.level(), 0);
}

TEST(LevelControl, WhereTheyAreEvenItStays) {
  Pipe pipe;
  pipe.run(seconds(60), encode_ms, [](int level) { return level == 0 ? 20.0 : 5.0; }, 4);
  EXPECT_EQ(pipe.control.level(), 1);
  EXPECT_EQ(pipe.changes, 0);
}

TEST(LevelControl, ItChangesLessAndLess) {
  Pipe pipe;  // level 1 is slower than the link, none is more than it carries
  pipe.run(
      seconds(120), [](int level) { return level == 0 ? 0.5 : 8.0; },
      [](int level) { return level == 0 ? 6.0 : 1.0; }, 6);
  EXPECT_LE(pipe.changes, 20);
}

TEST(LevelControl, AnIdleGuestSaysNothing) {
  LevelControl control(3);
  Instant now{};
  for (int i = 0; i < 10'000; ++i)
    EXPECT_FALSE(control.pass(now += milliseconds(1), false, false, 4));
}

}  // namespace
}  // namespace godwit::codec
