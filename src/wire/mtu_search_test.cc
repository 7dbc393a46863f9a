#include "wire/mtu_search.hh"

#include <gtest/gtest.h>

namespace godwit::wire {
namespace {

// A path that carries packets up to `mtu` (which may change), and answers at once.
struct Path {
  MtuSearch search{1200, 9000, seconds(600)};
  Instant now{seconds(1)};
  int mtu = 1500;
  int probes = 0;

  void run(Nanoseconds time) {
    const Instant end = now + time;
    while (search.next() <= end) {
      now = std::max(now, search.next());
      const auto size = search.probe(now, milliseconds(200));
      if (!size) continue;
      ++probes;
      EXPECT_GT(*size, search.confirmed());
      if (*size <= mtu) search.answered(*size, now);
    }
    now = end;
  }
};

TEST(MtuSearch, FindsEthernetWithTheFirstProbe) {
  Path path;
  const auto size = path.search.probe(path.now, milliseconds(200));
  ASSERT_EQ(size, 1500);
  EXPECT_TRUE(path.search.answered(1500, path.now));
  EXPECT_EQ(path.search.confirmed(), 1500);
}

TEST(MtuSearch, ComesWithinAStepOfAnyMtu) {
  for (int mtu = 1200; mtu <= 9100; mtu += 7) {
    Path path;
    path.mtu = mtu;
    path.run(seconds(60));
    EXPECT_LE(path.search.confirmed(), mtu);
    EXPECT_GT(path.search.confirmed() + MtuSearch::kStep, std::min(mtu, 9000)) << mtu;
    EXPECT_LT(path.probes, 60) << mtu;
  }
}

TEST(MtuSearch, HitsTheSizesThatNetworksHave) {
  for (const int mtu : {1280, 1400, 1420, 1460, 1492, 1500, 8500, 9000}) {
    Path path;
    path.mtu = mtu;
    path.run(seconds(60));
    EXPECT_EQ(path.search.confirmed(), mtu);
  }
}

TEST(MtuSearch, FallsToTheFloorAndFindsTheNewSize) {
  Path path;
  path.run(seconds(30));
  ASSERT_EQ(path.search.confirmed(), 1500);
  path.mtu = 1300;
  path.search.black_hole(path.now);
  EXPECT_EQ(path.search.confirmed(), 1200);
  path.run(seconds(10));
  EXPECT_LE(path.search.confirmed(), 1300);
  EXPECT_GT(path.search.confirmed() + MtuSearch::kStep, 1300);
}

TEST(MtuSearch, TriesLargerOnesAgainLater) {
  Path path;
  path.mtu = 1400;
  path.run(seconds(60));
  ASSERT_EQ(path.search.confirmed(), 1400);
  path.mtu = 1500;
  path.run(seconds(500));
  EXPECT_EQ(path.search.confirmed(), 1400);
  path.run(seconds(120));
  EXPECT_EQ(path.search.confirmed(), 1500);
}

TEST(MtuSearch, SurvivesLostProbes) {
  Path path;
  for (int lost = 0; lost < MtuSearch::kTries - 1; ++lost) {
    path.now = path.search.next();
    ASSERT_EQ(path.search.probe(path.now, milliseconds(200)), 1500);
  }
  path.run(milliseconds(200));
  EXPECT_EQ(path.search.confirmed(), 1500);
}

TEST(MtuSearch, TakesALateAnswer) {
  Path path;
  path.mtu = 1300;
  path.run(seconds(60));
  EXPECT_TRUE(path.search.answered(1500, path.now));
  EXPECT_EQ(path.search.confirmed(), 1500);
  EXPECT_FALSE(path.search.answered(1400, path.now));
  EXPECT_FALSE(path.search.answered(9001, path.now));
}

}  // namespace
}  // namespace godwit::wire
