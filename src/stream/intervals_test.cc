#include "stream/intervals.hh"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace godwit::stream {
namespace {

TEST(Intervals, JoinsWhatTouches) {
  Intervals set;
  set.add(10, 20);
  set.add(30, 40);
  EXPECT_EQ(set.count(), 2U);
  set.add(20, 30);
  EXPECT_EQ(set.count(), 1U);
  EXPECT_EQ(set.first(), (Intervals::Range{10, 40}));
  set.remove_below(15);
  EXPECT_EQ(set.first(), (Intervals::Range{15, 40}));
  EXPECT_EQ(set.bytes(), 25U);
}

TEST(Intervals, AreASetOfPositions) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    Intervals set;
    std::set<std::uint64_t> model;
    for (int step = 0; step < 40; ++step) {
      const std::uint64_t from = random() % 100, to = from + random() % 20;
      if (random() % 4 == 0) {
        const std::uint64_t position = from / 4;
        set.remove_below(position);
        model.erase(model.begin(), model.lower_bound(position));
      } else {
        set.add(from, to);
        for (std::uint64_t i = from; i < to; ++i) model.insert(i);
      }
      ASSERT_EQ(set.bytes(), model.size());
      ASSERT_EQ(set.empty(), model.empty());
      if (!model.empty()) {
        ASSERT_EQ(set.first().from, *model.begin());
        ASSERT_EQ(set.last().to, *model.rbegin() + 1);
      }
      std::size_t gaps = 0;
      for (const std::uint64_t each : model) gaps += model.contains(each + 1) ? 0 : 1;
      ASSERT_EQ(set.count(), gaps);
      const std::uint64_t end = from + 1 + random() % 5;
      bool all = true;
      for (std::uint64_t i = from; i < end; ++i) all = all && model.contains(i);
      ASSERT_EQ(set.contains(from, end), all);
    }
  }
}

}  // namespace
}  // namespace godwit::stream
