#include "disk/write_pace.hh"

#include <gtest/gtest.h>

namespace godwit::disk {
namespace {

constexpr Nanoseconds kLimit = milliseconds(60), kSlow = milliseconds(61),
                      kQuick = milliseconds(45);
constexpr BitRate kPath{400'000'000};

TEST(WritePace, WithoutALimitThereIsNoCap) {
  WritePace pace(Nanoseconds(0));
  EXPECT_EQ(pace.look(seconds(2), kPath), std::nullopt);
}

TEST(WritePace, ShrinksWhileWritesAreSlowAndGrowsBackWhenTheyAreNot) {
  WritePace pace(kLimit);
  EXPECT_EQ(pace.look(kQuick, kPath), std::nullopt);
  const auto first = pace.look(kSlow, kPath);
  ASSERT_TRUE(first);
  EXPECT_EQ(first->bits_per_second, 280'000'000U);
  const auto second = pace.look(kSlow, *first);
  EXPECT_EQ(second->bits_per_second, 196'000'000U);
  EXPECT_EQ(pace.look(Nanoseconds(0), *second)->bits_per_second, 216'000'000U) << "nobody waited";
  std::optional<BitRate> cap;
  int looks = 0;
  do {
    cap = pace.look(kQuick, kPath);
  } while (cap && ++looks < 100);
  EXPECT_EQ(looks, 9);
}

TEST(WritePace, SomethingAlwaysGoes) {
  WritePace pace(kLimit);
  std::optional<BitRate> cap;
  for (int i = 0; i < 50; ++i) cap = pace.look(kSlow, cap.value_or(kPath));
  EXPECT_EQ(cap->bits_per_second, kPath.bits_per_second / 4);
}

// As it begins to fill the path; a cap of so little would be the writes' own hindrance.
TEST(WritePace, WhatItCarriedOnceIsRemembered) {
  WritePace pace(kLimit);
  EXPECT_EQ(pace.look(kSlow, {40'000'000})->bits_per_second, 28'000'000U);
  while (pace.look(kQuick, {40'000'000})) {
  }
  EXPECT_EQ(pace.look(kQuick, kPath), std::nullopt);
  EXPECT_EQ(pace.look(kSlow, {40'000'000})->bits_per_second, 100'000'000U);
}

}  // namespace
}  // namespace godwit::disk
