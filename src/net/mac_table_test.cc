#include "net/mac_table.hh"

#include <gtest/gtest.h>

namespace godwit::net {
namespace {

constexpr Nanoseconds kAgeing = seconds(300);

TEST(Mac, IsWrittenAsUsual) { EXPECT_EQ(to_text(Mac{0x5254001234ff}), "52:54:00:12:34:ff"); }

TEST(MacTable, WhereItWasSeenLastIsWhereItIs) {
  MacTable table(4, kAgeing, 1);
  const Instant now{};
  EXPECT_EQ(table.learn(1, 0xa, 3, now), MacTable::Learned::known);
  EXPECT_EQ(table.learn(2, 0xa, 5, now), MacTable::Learned::known);
  EXPECT_EQ(table.find(1, 0xa, now), 3);
  EXPECT_EQ(table.find(2, 0xa, now), 5);
  EXPECT_EQ(table.learn(1, 0xa, 4, now), MacTable::Learned::moved);
  EXPECT_EQ(table.find(1, 0xa, now), 4);
  EXPECT_EQ(table.find(3, 0xa, now), std::nullopt);
}

TEST(MacTable, WhatIsPinnedStays) {
  MacTable table(4, kAgeing, 1);
  table.pin(1, 0xa, 3);
  EXPECT_EQ(table.learn(1, 0xa, 4, Instant{}), MacTable::Learned::known);
  EXPECT_EQ(table.find(1, 0xa, Instant{} + 2 * kAgeing), 3);
  table.forget_old(Instant{} + 2 * kAgeing);
  EXPECT_EQ(table.size(), 1u);
}

TEST(MacTable, ForgetsWhatIsOld) {
  MacTable table(4, kAgeing, 1);
  table.learn(1, 0xa, 3, Instant{});
  table.learn(1, 0xb, 3, Instant{} + seconds(1));
  const Instant later = Instant{} + kAgeing + milliseconds(1);
  EXPECT_EQ(table.find(1, 0xa, later), std::nullopt) << "before anybody cleans up";
  EXPECT_EQ(table.find(1, 0xb, later), 3);
  table.forget_old(later);
  EXPECT_EQ(table.size(), 1u);
}

TEST(MacTable, WhenItIsFullNothingIsLearned) {
  MacTable table(2, kAgeing, 1);
  table.learn(1, 0xa, 1, Instant{});
  table.learn(1, 0xb, 2, Instant{});
  EXPECT_EQ(table.learn(1, 0xc, 3, Instant{}), MacTable::Learned::full);
  EXPECT_EQ(table.find(1, 0xc, Instant{}), std::nullopt);
  EXPECT_EQ(table.learn(1, 0xa, 3, Instant{}), MacTable::Learned::moved) << "what is known moves";
}

}  // namespace
}  // namespace godwit::net
