#include "wire/intake.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace godwit::wire {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class IntakeTest : public ::testing::Test {
 protected:
  // Frames are single bytes.
  void frame(Label label, std::uint8_t number) {
    const Bytes bytes{std::byte{number}};
    if (intake.frame(label, bytes, now)) got.push_back(number);
  }
  void end(Label label, End::Kind kind, Epoch next, std::uint64_t serial = 1) {
    intake.ended(label, {kind, next, serial, 0, 0});
    intake.advance(now, deliver);
  }
  void begins(Epoch producer, Epoch first) {
    intake.begins(producer, first);
    intake.advance(now, deliver);
  }

  Limits limits;
  Intake intake{limits};
  Instant now{seconds(1)};
  std::vector<int> got;
  Intake::Deliver deliver = [this](BytesView frame) {
    got.push_back(std::to_integer<int>(frame[0]));
  };
};

TEST_F(IntakeTest, FlushComesBeforeWhatWasSentDirectly) {
  intake.start({1, 1});
  intake.open(true, now, deliver);
  frame({1, 1}, 1);
  frame({1, 2}, 3);
  EXPECT_TRUE(intake.blocked_since());
  frame({1, 1}, 2);
  EXPECT_THAT(got, ElementsAre(1, 2));
  end({1, 1}, End::Kind::flush, 2);
  EXPECT_THAT(got, ElementsAre(1, 2, 3));
  EXPECT_FALSE(intake.blocked_since());
}

TEST_F(IntakeTest, AMoveOfTheProducerNeedsBothItsEofAndItsMove) {
  intake.start({1, 1});
  intake.open(true, now, deliver);
  frame({2, 1}, 9);
  end({1, 1}, End::Kind::eof, 2);
  EXPECT_THAT(got, IsEmpty());
  begins(2, 1);
  EXPECT_THAT(got, ElementsAre(9));
}

TEST_F(IntakeTest, TheEofOfAnAbortedMoveDoesNotEndTheSegment) {
  intake.start({1, 1});
  intake.open(true, now, deliver);
  end({1, 1}, End::Kind::eof, 2, 1);  // to epoch 2, which never came
  frame({1, 1}, 1);
  begins(3, 1);
  frame({3, 1}, 3);
  frame({1, 1}, 2);
  EXPECT_THAT(got, ElementsAre(1, 2));
  end({1, 1}, End::Kind::eof, 3, 2);
  EXPECT_THAT(got, ElementsAre(1, 2, 3));
}

TEST_F(IntakeTest, KeepsEverythingWhileClosed) {
  frame({1, 1}, 1);
  frame({1, 2}, 3);
  frame({1, 1}, 2);
  end({1, 1}, End::Kind::flush, 2);
  intake.start({1, 1});
  EXPECT_EQ(intake.held_frames(), 3U);
  intake.open(true, now, deliver);
  EXPECT_THAT(got, ElementsAre(1, 2, 3));
  EXPECT_EQ(intake.held_bytes(), 0U);
}

TEST_F(IntakeTest, GivesUpWhenForcedAndThenPassesWhatIsLate) {
  intake.start({1, 1});
  intake.open(true, now, deliver);
  frame({1, 2}, 2);
  intake.force(now, deliver);
  frame({1, 1}, 1);
  EXPECT_THAT(got, ElementsAre(2, 1));
  EXPECT_EQ(intake.counters().late, 1U);
  EXPECT_EQ(intake.counters().forced, 1U);
}

TEST_F(IntakeTest, BothEndsMovedManyTimes) {
  intake.start({1, 1});
  intake.open(true, now, deliver);
  begins(2, 1);
  begins(3, 3);
  frame({3, 3}, 5);
  frame({2, 2}, 4);
  frame({2, 1}, 3);
  frame({1, 2}, 2);
  frame({1, 1}, 1);
  end({2, 2}, End::Kind::eof, 3);
  end({1, 2}, End::Kind::eof, 2);
  end({2, 1}, End::Kind::flush, 2);
  EXPECT_THAT(got, ElementsAre(1));
  end({1, 1}, End::Kind::flush, 2);
  EXPECT_THAT(got, ElementsAre(1, 2, 3, 4, 5));
  EXPECT_EQ(intake.current(), (Label{3, 3}));
}

// A wire to another producer, which offers a move to an epoch at which the one of before was, and
// takes it back.
TEST_F(IntakeTest, ForgetsWithTheFramesWhereItsProducerBegan) {
  intake.start({1, 1});
  intake.open(true, now, deliver);
  begins(2, 1);
  end({1, 1}, End::Kind::eof, 2);
  begins(3, 1);
  frame({3, 1}, 9);
  EXPECT_TRUE(intake.blocked_since());
  intake.clear();
  EXPECT_FALSE(intake.blocked_since());
  intake.start({1, 2});
  end({1, 2}, End::Kind::eof, 2, 1);
  frame({1, 2}, 1);
  begins(3, 2);
  frame({3, 2}, 3);
  EXPECT_TRUE(intake.blocked_since());
  frame({1, 2}, 2);
  end({1, 2}, End::Kind::eof, 3, 2);
  EXPECT_FALSE(intake.blocked_since());
  EXPECT_THAT(got, ElementsAre(1, 2, 3));
  EXPECT_EQ(intake.counters().late, 0U);
}

TEST_F(IntakeTest, SegmentsAreBounded) {
  intake.start({1, 1});
  for (Epoch i = 1; i < 100; ++i) frame({i, 1}, 1);
  EXPECT_LE(intake.segments().size(), limits.segments);
  EXPECT_GT(intake.counters().dropped, 0U);
}

}  // namespace
}  // namespace godwit::wire
