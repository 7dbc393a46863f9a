#include "net/firewall.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "net/tracker_testing.hh"

namespace godwit::net {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;
using testing::UnorderedElementsAre;

constexpr PortIndex kIn = 0, kOut = 1;

struct FirewallTest : testing::Test {
  std::map<PortIndex, std::vector<Bytes>> send(PortIndex from, const Bytes& frame) {
    Received out;
    give(firewall, from, frame, now, out);
    return out.frames;
  }
  bool passes(PortIndex from, const Bytes& frame) {
    const auto out = send(from, frame);
    if (out.empty()) return false;
    EXPECT_THAT(out, ElementsAre(Pair(from == kIn ? kOut : kIn, ElementsAre(frame))));
    return true;
  }
  static Bytes tagged(const Bytes& frame, Vlan vlan) {
    Bytes out;
    push_tag(frame, vlan, out);
    return out;
  }

  // Only from inside to outside.
  const FirewallConfig one_way{.filter = {.rules = {{.in = {kIn}}}, .otherwise = Action::drop}};
  Firewall firewall{one_way, 1};
  Instant now = Instant{} + seconds(1);
  const PacketSpec there{.source = ip("10.7.0.2"),
                         .destination = ip("198.51.100.9"),
                         .source_port = 4000,
                         .destination_port = 53};
  const PacketSpec back = TrackerTest::answer_to(there);
};

TEST_F(FirewallTest, LetsAnswersThrough) {
  EXPECT_FALSE(passes(kOut, packet_of(back)));
  EXPECT_TRUE(passes(kIn, packet_of(there)));
  EXPECT_TRUE(passes(kOut, packet_of(back)));
  EXPECT_TRUE(passes(kOut, icmp_error(packet_of(there), ip("203.0.113.1"), 11)));
  EXPECT_THAT(firewall.counters()[kOut].drops, ElementsAre(Pair("policy", 1)));
  EXPECT_EQ(firewall.counters()[kOut].rx_frames, 3u);
  EXPECT_EQ(firewall.counters()[kIn].tx_frames, 2u);
  EXPECT_EQ(firewall.tracker().rules()[0].packets, 1u);
  EXPECT_EQ(firewall.tracker().flows(now).size(), 1u);
  now += seconds(31);
  Received none;
  firewall.tick(now, none);
  EXPECT_EQ(firewall.tracker().table().size(), 0u);
}

TEST_F(FirewallTest, LooksBehindOneTagAndKeepsVlansApart) {
  EXPECT_TRUE(passes(kIn, tagged(packet_of(there), 10)));
  EXPECT_TRUE(passes(kOut, tagged(packet_of(back), 10)));
  EXPECT_FALSE(passes(kOut, tagged(packet_of(back), 11)));
  EXPECT_FALSE(passes(kOut, packet_of(back)));
  EXPECT_FALSE(passes(kIn, tagged(tagged(packet_of(there), 10), 20)));
  EXPECT_THAT(firewall.counters()[kIn].drops, ElementsAre(Pair("type", 1)));
}

TEST_F(FirewallTest, PassesWhatTheLinkNeeds) {
  const Bytes arp = frame_with(1, 2, "0806" + std::string(56, '0'));
  EXPECT_TRUE(passes(kOut, arp));
  EXPECT_TRUE(passes(kOut, tagged(arp, 5)));
  EXPECT_TRUE(passes(kOut, packet_of({.source = ip("fd07::2"),
                                      .destination = ip("fd07::1"),
                                      .protocol = kIcmp,
                                      .icmp_type = 135})));
  EXPECT_FALSE(passes(kOut, frame(1, 2)));
  EXPECT_FALSE(passes(kOut, Bytes(wire::kMinFrameBytes - 1)));
  Bytes damaged = packet_of(there);
  damaged[kPayloadAt + 10] ^= std::byte{1};
  EXPECT_FALSE(passes(kOut, damaged));
  EXPECT_THAT(firewall.counters()[kOut].drops,
              UnorderedElementsAre(Pair("type", 1), Pair("short", 1), Pair("malformed", 1)));
  FirewallConfig config = one_way;
  config.pass.push_back(0x88b5);
  firewall.configure(config);
  EXPECT_TRUE(passes(kOut, frame(1, 2)));
}

TEST_F(FirewallTest, AnswersWhatItRejects) {
  FirewallConfig config = one_way;
  config.filter.otherwise = Action::reject;
  firewall.configure(config);
  const auto out = send(kOut, tagged(packet_of(back), 10));
  ASSERT_THAT(out, ElementsAre(Pair(kOut, testing::SizeIs(1))));
  const auto packet = read_ip(out.at(kOut)[0], kPayloadAt + kTagBytes);
  ASSERT_TRUE(packet);
  EXPECT_EQ(packet->protocol, kIcmp);
  EXPECT_EQ(packet->source, back.destination);
  EXPECT_EQ(vlan_of(out.at(kOut)[0]), 10);
  std::size_t answers = 0;
  for (int i = 0; i < 2000; ++i) answers += send(kOut, packet_of(back)).size();
  EXPECT_EQ(answers, 999u);
  now += seconds(1);
  EXPECT_THAT(send(kOut, packet_of(back)), testing::SizeIs(1));
}

TEST_F(FirewallTest, SuperFramesPassAsTheyAre) {
  wire::testing::Random random(1);
  const Bytes super = wire::testing::super_frame({}, random);
  EXPECT_TRUE(passes(kIn, super));
}

TEST_F(FirewallTest, NewRulesAreForOldFlowsToo) {
  EXPECT_TRUE(passes(kIn, packet_of(there)));
  firewall.configure(one_way);
  EXPECT_TRUE(passes(kOut, packet_of(back)));
  FirewallConfig config = one_way;
  config.filter.rules[0].protocol = kTcp;
  firewall.configure(config);
  EXPECT_FALSE(passes(kOut, packet_of(back)));
  EXPECT_FALSE(passes(kIn, packet_of(there)));
}

TEST(FirewallConfigTest, IsChecked) {
  const auto refusal = [](const FirewallConfig& config) {
    const auto done = check(config);
    return done ? "" : done.error().text;
  };
  EXPECT_EQ(refusal({}), "");
  EXPECT_THAT(refusal({.ports = {0, 1, 2}}), HasSubstr("two ports"));
  EXPECT_THAT(refusal({.ports = {1, 1}}), HasSubstr("two ports"));
  EXPECT_THAT(refusal({.ports = {0, kMostPorts}}), HasSubstr("at most"));
  EXPECT_THAT(refusal({.filter = {.rules = {{.in = {7}}}}}), HasSubstr("port 7"));
  EXPECT_THAT(refusal({.most_flows = 0}), HasSubstr("at least one"));
}

}  // namespace
}  // namespace godwit::net
