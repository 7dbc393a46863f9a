#include "net/switch.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "net/net_testing.hh"

namespace godwit::net {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;
using testing::UnorderedElementsAre;

constexpr Mac kAll = 0xffffffffffff;
constexpr Mac kA = 0x02000000000a, kB = 0x02000000000b, kC = 0x02000000000c;

struct SwitchTest : testing::Test {
  // What comes out, by port, of a frame.
  std::map<PortIndex, std::vector<Bytes>> send(Switch& to, PortIndex from, const Bytes& frame) {
    Received out;
    give(to, from, frame, now, out);
    return out.frames;
  }
  std::vector<PortIndex> ports(Switch& to, PortIndex from, const Bytes& frame) {
    std::vector<PortIndex> all;
    for (const auto& [port, frames] : send(to, from, frame)) all.push_back(port);
    return all;
  }
  static SwitchConfig with_ports(std::size_t count) {
    SwitchConfig config;
    for (PortIndex i = 0; i < count; ++i) config.ports[i] = {};
    return config;
  }

  Instant now = Instant{} + seconds(1);
};

TEST_F(SwitchTest, FloodsWhatItDoesNotKnowAndThenKnows) {
  Switch sw(with_ports(4), 1);
  EXPECT_THAT(ports(sw, 0, frame(kA, kAll)), ElementsAre(1, 2, 3));
  EXPECT_THAT(ports(sw, 1, frame(kB, kA)), ElementsAre(0));
  EXPECT_THAT(ports(sw, 2, frame(kC, kB)), ElementsAre(1));
  EXPECT_THAT(ports(sw, 3, frame(kA, kB)), ElementsAre(1)) << "A has moved to port 3";
  EXPECT_THAT(ports(sw, 2, frame(kC, kA)), ElementsAre(3)) << "followed at once";
  EXPECT_EQ(sw.moved(), 1u);
  now += seconds(301);
  EXPECT_THAT(ports(sw, 2, frame(kC, kA)), ElementsAre(0, 1, 3)) << "forgotten";
  EXPECT_THAT(ports(sw, 2, frame(kB, kC)), IsEmpty()) << "it is where it comes from";
  EXPECT_THAT(sw.counters()[2].drops, ElementsAre(Pair("same-port", 1)));
}

TEST_F(SwitchTest, KeepsVlansApart) {
  SwitchConfig config = with_ports(5);
  config.ports[0].access = 10;
  config.ports[1].access = 10;
  config.ports[2].access = 20;
  config.ports[3].trunk = {10, 30};
  config.ports[4].native = 20;
  Switch sw(config, 1);
  const Bytes bare = frame(kA, kAll), in_10 = frame(kA, kAll, 10), in_20 = frame(kA, kAll, 20);
  EXPECT_THAT(send(sw, 0, bare),
              ElementsAre(Pair(1, ElementsAre(bare)), Pair(3, ElementsAre(in_10)),
                          Pair(4, ElementsAre(in_10))));
  EXPECT_THAT(send(sw, 2, bare), ElementsAre(Pair(4, ElementsAre(bare)))) << "native there";
  EXPECT_THAT(send(sw, 3, in_10),
              ElementsAre(Pair(0, ElementsAre(bare)), Pair(1, ElementsAre(bare)),
                          Pair(4, ElementsAre(in_10))));
  EXPECT_THAT(send(sw, 3, in_20), IsEmpty());
  EXPECT_THAT(send(sw, 0, in_20), IsEmpty());
  EXPECT_THAT(sw.counters()[0].drops, ElementsAre(Pair("vlan", 1)));
  // The same address in two VLANs is two stations.
  EXPECT_THAT(ports(sw, 1, frame(kB, kA)), ElementsAre(3));
  EXPECT_THAT(ports(sw, 4, frame(kB, kA, 20)), ElementsAre(2));
}

TEST_F(SwitchTest, APlainOneCarriesTagsAsTheyAre) {
  Switch sw(with_ports(2), 1);
  for (const Bytes& each : {frame(kA, kAll), frame(kA, kAll, 7), frame(kA, kAll, kMostVlan)}) {
    EXPECT_THAT(send(sw, 0, each), ElementsAre(Pair(1, ElementsAre(each))));
  }
  EXPECT_THAT(ports(sw, 0, frame(kA, kAll, 4095)), IsEmpty()) << "no VLAN";
  EXPECT_THAT(send(sw, 0, frame(kA, kAll, 0)), ElementsAre(Pair(1, ElementsAre(frame(kA, kAll)))))
      << "a priority only";
}

TEST_F(SwitchTest, SuperFramesKeepTheirOffsetsRight) {
  SwitchConfig config = with_ports(2);
  config.ports[0].access = 10;
  Switch sw(config, 1);
  wire::testing::Random random(1);
  Bytes super = wire::testing::super_frame({}, random);
  write_macs(super, kA, kAll);
  const auto out = send(sw, 0, super);
  ASSERT_EQ(out.at(1).size(), 1u);
  EXPECT_EQ(vlan_of(out.at(1)[0]), 10);
  EXPECT_TRUE(wire::check_vnet(out.at(1)[0]));
}

TEST_F(SwitchTest, AStretchedOneHasNoLoop) {
  SwitchConfig config = with_ports(4);
  config.ports[0].stretched = config.ports[1].stretched = true;
  Switch sw(config, 1);
  EXPECT_THAT(ports(sw, 0, frame(kA, kAll)), ElementsAre(2, 3));
  EXPECT_THAT(ports(sw, 2, frame(kB, kAll)), ElementsAre(0, 1, 3));
  EXPECT_THAT(ports(sw, 1, frame(kC, kA)), IsEmpty()) << "A is at the other site's";
  EXPECT_THAT(sw.counters()[1].drops, ElementsAre(Pair("split-horizon", 1)));
}

TEST_F(SwitchTest, IsolatedPortsReachOnlyOthers) {
  SwitchConfig config = with_ports(3);
  config.ports[0].isolated = config.ports[1].isolated = true;
  Switch sw(config, 1);
  EXPECT_THAT(ports(sw, 0, frame(kA, kAll)), ElementsAre(2));
  EXPECT_THAT(ports(sw, 1, frame(kB, kA)), IsEmpty());
  EXPECT_THAT(ports(sw, 2, frame(kC, kAll)), ElementsAre(0, 1));
}

TEST_F(SwitchTest, LimitsWhatAPortFloods) {
  SwitchConfig config = with_ports(2);
  config.ports[0].flooded_per_s = 100;
  Switch sw(config, 1);
  ports(sw, 1, frame(kB, kAll));
  const auto flooded = [&](int frames) {
    int passed = 0;
    for (int i = 0; i < frames; ++i) passed += ports(sw, 0, frame(kA, kAll)).empty() ? 0 : 1;
    return passed;
  };
  EXPECT_EQ(flooded(50), 16) << "a burst";
  EXPECT_THAT(ports(sw, 0, frame(kA, kB)), ElementsAre(1)) << "is no flood";
  now += milliseconds(50);
  EXPECT_EQ(flooded(50), 5);
  now += seconds(100);
  EXPECT_EQ(flooded(50), 16) << "what was not used is not saved up";
  EXPECT_EQ(sw.counters()[0].drops.at("storm"), 34u + 45u + 34u);
}

TEST_F(SwitchTest, CopiesToTheMirror) {
  SwitchConfig config = with_ports(4);
  config.mirror = 3;
  config.ports[0].mirrored = true;
  Switch sw(config, 1);
  EXPECT_THAT(ports(sw, 0, frame(kA, kAll)), ElementsAre(1, 2, 3));
  EXPECT_THAT(ports(sw, 1, frame(kB, kA)), ElementsAre(0, 3));
  EXPECT_THAT(ports(sw, 2, frame(kC, kB)), ElementsAre(1)) << "neither is mirrored";
  EXPECT_THAT(ports(sw, 3, frame(kC, kAll)), IsEmpty());
  EXPECT_THAT(ports(sw, 1, frame(kB, kC)), ElementsAre(2)) << "nothing was learned there";
}

TEST_F(SwitchTest, IpGroupsGoWhereTheyAreWantedOnceSomebodyAsks) {
  constexpr Mac kGroup = 0x01005e010203;
  SwitchConfig config = with_ports(5);
  config.ports[4].stretched = true;
  Switch sw(config, 1);
  const Bytes report = igmp(kB, kGroup, "1600deadef010203");
  const Bytes data = frame(kA, kGroup);
  EXPECT_THAT(ports(sw, 1, report), ElementsAre(0, 2, 3, 4)) << "nobody has asked";
  EXPECT_THAT(ports(sw, 0, data), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(ports(sw, 3, igmp(kC, 0x01005e000001, "1164dead00000000")), ElementsAre(0, 1, 2, 4));
  EXPECT_THAT(ports(sw, 1, report), ElementsAre(3, 4)) << "who asks, and the other instance";
  EXPECT_THAT(ports(sw, 0, data), ElementsAre(1, 3, 4));
  EXPECT_THAT(ports(sw, 0, frame(kA, kGroup + 1)), ElementsAre(3, 4)) << "nobody wants it";
  EXPECT_THAT(ports(sw, 0, frame(kA, 0x01005e0000fb)), ElementsAre(1, 2, 3, 4)) << "of the network";
  EXPECT_THAT(ports(sw, 0, frame(kA, kGroup, 10)), ElementsAre(1, 2, 3, 4)) << "another VLAN";
  now += seconds(300);
  EXPECT_THAT(ports(sw, 0, data), ElementsAre(1, 2, 3, 4)) << "nobody asks any more";
  config.snooping = false;
  sw.configure(config);
  ports(sw, 3, igmp(kC, 0x01005e000001, "1164dead00000000"));
  EXPECT_THAT(ports(sw, 0, data), ElementsAre(1, 2, 3, 4));
}

TEST_F(SwitchTest, LearnsNoMoreThanItsTableHolds) {
  SwitchConfig config = with_ports(2);
  config.most_macs = 2;
  Switch sw(config, 1);
  for (const Mac mac : {kA, kB, kC}) ports(sw, 0, frame(mac, kAll));
  EXPECT_EQ(sw.not_learned(), 1u);
  EXPECT_EQ(sw.macs().size(), 2u);
  EXPECT_THAT(ports(sw, 1, frame(kA + 99, kC)), ElementsAre(0)) << "flooded";
}

TEST_F(SwitchTest, AgesAsItIsTold) {
  SwitchConfig config = with_ports(3);
  Switch sw(config, 1);
  ports(sw, 0, frame(kA, kAll));
  config.ageing = seconds(10);
  sw.configure(config);
  now += seconds(11);
  EXPECT_THAT(ports(sw, 1, frame(kB, kA)), ElementsAre(0, 2));
}

TEST_F(SwitchTest, MakesNoFrameLongerThanAWireCarries) {
  SwitchConfig config = with_ports(3);
  config.ports[0].access = 10;
  config.ports[2].access = 10;
  Switch sw(config, 1);
  Bytes longest = frame(kA, kAll);
  longest.resize(wire::kMaxFrameBytes);
  EXPECT_THAT(ports(sw, 0, longest), ElementsAre(2));
  EXPECT_THAT(sw.counters()[1].drops, ElementsAre(Pair("too-long", 1)));
}

TEST_F(SwitchTest, KeepsWhatItKnowsWhenItsPortsChange) {
  SwitchConfig config = with_ports(3);
  Switch sw(config, 1);
  ports(sw, 0, frame(kA, kAll));
  ports(sw, 1, frame(kB, kAll));
  config.ports.erase(1);
  config.ports[3] = {};
  sw.configure(config);
  EXPECT_THAT(ports(sw, 3, frame(kC, kA)), ElementsAre(0));
  EXPECT_THAT(ports(sw, 3, frame(kC, kB)), ElementsAre(0, 2)) << "its port is gone";
  EXPECT_THAT(ports(sw, 1, frame(kB, kAll)), IsEmpty());
  config.macs = {{.vlan = kUntagged, .mac = kB, .port = 2}};
  sw.configure(config);
  EXPECT_THAT(ports(sw, 3, frame(kC, kB)), ElementsAre(2));
  config.macs.clear();
  sw.configure(config);
  EXPECT_THAT(ports(sw, 3, frame(kC, kB)), ElementsAre(0, 2)) << "pinned no more";
}

TEST_F(SwitchTest, DropsWhatNoBridgeForwards) {
  Switch sw(with_ports(2), 1);
  EXPECT_THAT(ports(sw, 0, frame(kA, 0x0180c200000e)), IsEmpty());
  EXPECT_THAT(ports(sw, 0, frame(kAll, kB)), IsEmpty());
  EXPECT_THAT(ports(sw, 0, frame(0, kB)), IsEmpty());
  EXPECT_THAT(ports(sw, 0, Bytes(wire::kMinFrameBytes - 1)), IsEmpty());
  EXPECT_THAT(sw.counters()[0].drops,
              UnorderedElementsAre(Pair("reserved", 1), Pair("source", 2), Pair("short", 1)));
  EXPECT_THAT(ports(sw, 7, frame(kA, kAll)), IsEmpty()) << "there is no such port";
}

TEST(SwitchConfig, IsChecked) {
  const auto refusal = [](auto change) {
    SwitchConfig config{.ports = {{0, {}}, {1, {}}}};
    change(config);
    const auto done = check(config);
    return done ? "" : done.error().text;
  };
  EXPECT_EQ(refusal([](auto&) {}), "");
  EXPECT_THAT(refusal([](auto& c) { c.ports[0].access = 4095; }), HasSubstr("no VLAN"));
  EXPECT_THAT(refusal([](auto& c) { c.ports[0].access = 0; }), HasSubstr("no VLAN"));
  EXPECT_THAT(refusal([](auto& c) { c.ports[0].trunk = {0}; }), HasSubstr("no VLAN"));
  EXPECT_THAT(refusal([](auto& c) { c.ports[0] = {.access = 1, .trunk = {2}}; }),
              HasSubstr("or a trunk"));
  EXPECT_THAT(refusal([](auto& c) { c.mirror = 9; }), HasSubstr("mirror"));
  EXPECT_THAT(refusal([](auto& c) { c.macs = {{.mac = kA, .port = 9}}; }), HasSubstr("no port"));
  EXPECT_THAT(refusal([](auto& c) { c.macs = {{.mac = kAll, .port = 0}}; }), HasSubstr("group"));
  EXPECT_THAT(refusal([](auto& c) { c.ports[kMostPorts] = {}; }), HasSubstr("at most"));
}

}  // namespace
}  // namespace godwit::net
