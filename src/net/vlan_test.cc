#include "net/vlan.hh"

#include <gtest/gtest.h>

#include "wire/wire_testing.hh"

namespace godwit::net {
namespace {

using wire::testing::Random;

TEST(Vlan, AFrameIsTheSameAfterATagCameAndWent) {
  Random random(1);
  for (int i = 0; i < 200; ++i) {
    const Bytes frame = wire::testing::super_frame(
        {.is_ip6 = i % 2 == 0, .is_udp = i % 3 == 0, .has_vlan = i % 5 == 0}, random);
    Bytes tagged, bare;
    push_tag(frame, 7, tagged);
    EXPECT_EQ(tagged.size(), frame.size() + kTagBytes);
    EXPECT_EQ(vlan_of(tagged), 7);
    EXPECT_TRUE(wire::check_vnet(tagged)) << "its offsets count the tag";
    pop_tag(tagged, bare);
    EXPECT_EQ(bare, frame);
  }
}

TEST(Vlan, WhatHasNoWholeTagHasNone) {
  Random random(1);
  EXPECT_EQ(vlan_of(wire::testing::plain_frame(wire::kMinFrameBytes, random)), std::nullopt);
  Bytes cut = wire::testing::plain_frame(60, random), tagged;
  push_tag(cut, kMostVlan, tagged);
  EXPECT_EQ(vlan_of(tagged), kMostVlan);
  tagged.resize(kTagAt + kTagBytes + 1);
  EXPECT_EQ(vlan_of(tagged), std::nullopt);
}

}  // namespace
}  // namespace godwit::net
