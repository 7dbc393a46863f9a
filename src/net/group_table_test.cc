#include "net/group_table.hh"

#include <gtest/gtest.h>

namespace godwit::net {
namespace {

constexpr Mac kGroup = 0x01005e010203;
constexpr Vlan kVlan = 10;

struct GroupTableTest : testing::Test {
  void join(PortIndex port, Mac group = kGroup) {
    table.heard(kVlan, port, {.groups = {{group, true}}}, now);
  }
  void leave(PortIndex port) { table.heard(kVlan, port, {.groups = {{kGroup, false}}}, now); }
  bool wanted(PortIndex port) const { return table.is_wanted(kVlan, kGroup, port, now); }

  GroupTable table;
  Instant now = Instant{} + seconds(1);
};

TEST_F(GroupTableTest, KnowsWhoWantsAGroupForAsLongAsHeSaysSo) {
  join(1);
  EXPECT_TRUE(wanted(1));
  EXPECT_FALSE(wanted(2));
  EXPECT_FALSE(table.is_wanted(kVlan + 1, kGroup, 1, now));
  now += seconds(200);
  join(1);
  now += seconds(200);
  EXPECT_TRUE(wanted(1));
  now += seconds(61);
  EXPECT_FALSE(wanted(1));
  table.forget_old(now);
  EXPECT_EQ(table.size(), 0u);
}

TEST_F(GroupTableTest, WaitsForOthersBehindThePortOfOneWhoLeaves) {
  join(1);
  leave(1);
  EXPECT_TRUE(wanted(1));
  now += milliseconds(1900);
  join(1);
  now += seconds(10);
  EXPECT_TRUE(wanted(1)) << "another one";
  leave(1);
  now += milliseconds(2001);
  EXPECT_FALSE(wanted(1));
}

TEST_F(GroupTableTest, KnowsNothingWhereNobodyAsks) {
  join(1);
  EXPECT_FALSE(table.knows(kVlan, kGroup, now));
  table.heard(kVlan, 3, {.is_query = true}, now);
  EXPECT_TRUE(table.knows(kVlan, kGroup, now));
  EXPECT_TRUE(table.knows(kVlan, kGroup + 1, now)) << "that nobody wants it";
  EXPECT_TRUE(table.asks(kVlan, 3, now));
  EXPECT_FALSE(table.asks(kVlan, 1, now));
  now += seconds(256);
  EXPECT_FALSE(table.is_asked(kVlan, now));
}

TEST_F(GroupTableTest, WhatItHasNoRoomForIsNotKnown) {
  table.heard(kVlan, 3, {.is_query = true}, now);
  for (Mac group = 0; group < 5000; ++group) join(1, kGroup + group);
  EXPECT_EQ(table.size(), 4096u);
  EXPECT_TRUE(table.knows(kVlan, kGroup, now));
  EXPECT_FALSE(table.knows(kVlan, kGroup + 4999, now));
}

TEST_F(GroupTableTest, ForgetsAPort) {
  table.heard(kVlan, 1, {.is_query = true, .groups = {{kGroup, true}}}, now);
  table.forget_port(1);
  EXPECT_FALSE(wanted(1) || table.is_asked(kVlan, now));
}

}  // namespace
}  // namespace godwit::net
