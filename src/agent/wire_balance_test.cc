#include "agent/wire_balance.hh"

#include <gtest/gtest.h>

#include <array>

namespace godwit::agent {
namespace {

using Places = std::vector<std::size_t>;

WireLoad load(std::uint16_t thread, std::size_t island, double work) {
  return {.ports = {}, .thread = thread, .island = island, .work = work};
}

TEST(WireBalance, WhatIsNotHotStays) {
  const std::vector loads{load(0, 0, 10), load(0, 1, 10)};
  EXPECT_FALSE(next_shift(std::array{0.45, 0.0}, loads));
  EXPECT_FALSE(next_shift(std::array{0.9, 0.8}, loads)) << "no better elsewhere";
  EXPECT_FALSE(next_shift(std::array{0.9, 0.0}, std::vector{load(0, 0, 0)})) << "of other work";
}

TEST(WireBalance, IslandsGoWhole) {
  // A tenant with most of the work, and two with a little.
  const std::vector loads{load(0, 0, 30), load(0, 0, 30), load(0, 1, 25), load(0, 2, 5),
                          load(0, 1, 10)};
  const auto shift = next_shift(std::array{1.0, 0.0, 0.1}, loads);
  ASSERT_TRUE(shift);
  EXPECT_TRUE(shift->is_island);
  EXPECT_EQ(shift->from, 0);
  EXPECT_EQ(shift->to, 1);
  EXPECT_EQ(shift->loads, (Places{0, 1})) << "60 is nearer to 50 than 35";
}

TEST(WireBalance, AnIslandThatIsAllThereIsIsDivided) {
  const std::vector loads{load(0, 0, 20), load(0, 0, 45), load(0, 0, 35)};
  const auto shift = next_shift(std::array{1.0, 0.0}, loads);
  ASSERT_TRUE(shift);
  EXPECT_FALSE(shift->is_island);
  EXPECT_EQ(shift->loads, Places{1});
}

TEST(WireBalance, WhatWouldOnlyChangeSidesStays) {
  EXPECT_FALSE(next_shift(std::array{1.0, 0.0}, std::vector{load(0, 0, 100)}));
  EXPECT_FALSE(next_shift(std::array{1.0, 0.0}, std::vector{load(0, 0, 100), load(0, 1, 1)}));
}

TEST(WireBalance, ADividedIslandIsNoWholeOne) {
  const std::vector loads{load(0, 0, 50), load(1, 0, 1), load(0, 0, 40)};
  const auto shift = next_shift(std::array{0.9, 0.05}, loads);
  ASSERT_TRUE(shift);
  EXPECT_FALSE(shift->is_island);
  EXPECT_EQ(shift->loads.size(), 1U);
}

}  // namespace
}  // namespace godwit::agent
