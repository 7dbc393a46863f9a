#include "migrate/lane_share.hh"

#include <gtest/gtest.h>

namespace godwit::migrate {
namespace {

constexpr std::uint64_t kMega = 1'000'000;

TEST(LaneShare, TheFirstRoundSaysNothingOfChanges) {
  LaneShare share;
  EXPECT_EQ(share.at(1, {}), 1);
  // 400 MB, of which most were zeros.
  EXPECT_EQ(share.at(1, {.offered = 400 * kMega, .raw = 390 * kMega, .coded = 4 * kMega}), 1);
  EXPECT_EQ(share.at(2, {.offered = 400 * kMega, .raw = 400 * kMega, .coded = 4 * kMega}), 1);
}

TEST(LaneShare, ARoundOfChangesSaysItWithAMargin) {
  LaneShare share;
  share.at(1, {.offered = 100 * kMega, .raw = 100 * kMega, .coded = 1 * kMega});
  share.at(2, {.offered = 100 * kMega, .raw = 100 * kMega, .coded = 1 * kMega});
  const double halved =
      share.at(3, {.offered = 110 * kMega, .raw = 110 * kMega, .coded = 6 * kMega});
  EXPECT_DOUBLE_EQ(halved, 1.25 * 0.5);
  // In the middle of the next it stays.
  EXPECT_EQ(share.at(3, {.offered = 115 * kMega, .raw = 115 * kMega, .coded = 11 * kMega}), halved);
  // Never more than the byte itself.
  EXPECT_EQ(share.at(4, {.offered = 120 * kMega, .raw = 120 * kMega, .coded = 16 * kMega}), 1);
}

TEST(LaneShare, WhatIsEncodedLateIsNotTakenForChanges) {
  LaneShare share;
  share.at(1, {.offered = 100 * kMega, .raw = 60 * kMega, .coded = 1 * kMega});
  // The second round begins while 30 MB of the first, all zeros, wait for the encoder.
  share.at(2, {.offered = 100 * kMega, .raw = 70 * kMega, .coded = 1 * kMega});
  EXPECT_EQ(share.at(3, {.offered = 110 * kMega, .raw = 101 * kMega, .coded = 1 * kMega}), 1);
  EXPECT_DOUBLE_EQ(share.at(4, {.offered = 121 * kMega, .raw = 121 * kMega, .coded = 6 * kMega}),
                   1.25 * 0.25);
}

TEST(LaneShare, ARoundThatCostNextToNothingIsNotBelieved) {
  LaneShare share;
  share.at(1, {.offered = kMega, .raw = kMega, .coded = kMega});
  share.at(2, {.offered = kMega, .raw = kMega, .coded = kMega});
  EXPECT_EQ(share.at(3, {.offered = 9 * kMega, .raw = 9 * kMega, .coded = kMega}), 1.0 / 64);
}

TEST(LaneShare, AShortRoundChangesNothing) {
  LaneShare share;
  share.at(1, {.offered = kMega, .raw = kMega, .coded = kMega});
  share.at(2, {.offered = kMega, .raw = kMega, .coded = kMega});
  EXPECT_EQ(share.at(3, {.offered = kMega + 8192, .raw = kMega + 8192, .coded = kMega + 10}), 1);
}

}  // namespace
}  // namespace godwit::migrate
