#include "net/membership.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "net/net_testing.hh"

namespace godwit::net {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr Mac kHost = 0x02000000000a;
using Group = Membership::Group;

std::vector<Group> groups_in(const Bytes& frame) {
  const auto said = membership_of(frame);
  return said ? said->groups : std::vector<Group>{{.mac = 0xdead}};
}

// 239.1.2.3, and 239.129.2.3, whose frames go to the same address.
TEST(Igmp, OfEveryVersion) {
  constexpr Mac kTo = 0x01005e010203;
  EXPECT_THAT(groups_in(igmp(kHost, kTo,
                             "1200dead"
                             "ef010203")),
              ElementsAre(Group{kTo, true}));
  EXPECT_THAT(groups_in(igmp(kHost, kTo,
                             "1600dead"
                             "ef010203")),
              ElementsAre(Group{kTo, true}));
  EXPECT_THAT(groups_in(igmp(kHost, kTo,
                             "1700dead"
                             "ef010203")),
              ElementsAre(Group{kTo, false}));
  // Excludes nothing; includes nothing; includes one source; blocks one.
  EXPECT_THAT(
      groups_in(igmp(kHost, 0x01005e000016,
                     "2200dead00000004"
                     "04000000ef010203"
                     "03000000ef810204"
                     "01000001ef0102050a000001"
                     "06000001ef0102060a000001")),
      ElementsAre(Group{kTo, true}, Group{0x01005e010204, false}, Group{0x01005e010205, true}));
  const auto query = membership_of(igmp(kHost, 0x01005e000001,
                                        "1164dead"
                                        "00000000"));
  ASSERT_TRUE(query);
  EXPECT_TRUE(query->is_query);
  EXPECT_THAT(query->groups, IsEmpty());
}

TEST(Mld, OfBothVersions) {
  constexpr std::string_view kGroup = "ff0e0000000000000000000000010203";
  const auto with = [&](std::string_view start) {
    return std::string(start) + std::string(kGroup);
  };
  constexpr Mac kTo = 0x333300010203;
  EXPECT_THAT(groups_in(mld(kHost, kTo, with("8300dead00000000"))), ElementsAre(Group{kTo, true}));
  EXPECT_THAT(groups_in(mld(kHost, kTo, with("8400dead00000000"))), ElementsAre(Group{kTo, false}));
  EXPECT_THAT(groups_in(mld(kHost, 0x333300000016,
                            with("8f00dead00000001"
                                 "04000000"))),
              ElementsAre(Group{kTo, true}));
  EXPECT_TRUE(membership_of(mld(kHost, 0x333300000001, with("8200dead00640000")))->is_query);
}

// As Linux sends one from a raw socket: "do not fragment" is set.
TEST(Igmp, AQueryThatWasCaptured) {
  const auto query = membership_of(
      frame_with(kHost, 0x01005e000001,
                 "0800460000200a6a40000102f0620a080002e0000001940400001101eefe00000000"));
  ASSERT_TRUE(query);
  EXPECT_TRUE(query->is_query);
}

TEST(Membership, BehindATag) {
  Bytes tagged;
  push_tag(igmp(kHost, 0x01005e010203, "1600deadef010203"), 10, tagged);
  EXPECT_THAT(groups_in(tagged), ElementsAre(Group{0x01005e010203, true}));
}

TEST(Membership, OfNothingElse) {
  EXPECT_FALSE(membership_of(frame(kHost, 0xffffffffffff)));
  const Bytes whole = igmp(kHost, 0x01005e000016, "2200dead0000000104000000ef010203");
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_FALSE(membership_of(BytesView(whole).first(size))) << size;
  }
  EXPECT_FALSE(membership_of(igmp(kHost, 0x01005e000016, "2200dead0000000204000000ef010203")))
      << "a record less than it says";
}

TEST(Membership, WhatEverybodyGets) {
  EXPECT_TRUE(is_for_all(0xffffffffffff));
  EXPECT_TRUE(is_for_all(0x01005e0000fb)) << "224.0.0.251";
  EXPECT_FALSE(is_for_all(0x01005e0001fb));
  EXPECT_TRUE(is_for_all(0x333300000001));
  EXPECT_TRUE(is_for_all(0x3333ff123456)) << "solicited-node";
  EXPECT_FALSE(is_for_all(0x333300010203));
  EXPECT_TRUE(is_for_all(0x011b19000000)) << "no IP";
}

}  // namespace
}  // namespace godwit::net
