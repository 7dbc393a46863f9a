// Random traffic of many hosts both ways through a router that masquerades, forwards and maps one
// to one, with a small table: whatever passes has right checksums, answers come back to exactly who
// asked, and no two flows expect the same answer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "net/tracker_testing.hh"

namespace godwit::net {
namespace {

constexpr int kPackets = 6000;

struct TrackerProperty : TrackerTest, testing::WithParamInterface<unsigned> {
  std::size_t upto(std::size_t most) { return random() % most; }
  Ip one_of(std::initializer_list<const char*> texts) {
    return ip(*(texts.begin() + upto(texts.size())));
  }
  PacketSpec some_packet() {
    const bool is_ip4 = upto(3) != 0;
    PacketSpec spec;
    spec.source = is_ip4 ? Ip::of4(0x0a070002 + static_cast<std::uint32_t>(upto(6)))
                         : one_of({"fd07::2", "fd07::3", "fd08::2"});
    spec.destination = is_ip4 ? one_of({"198.51.100.9", "198.51.100.10", "192.0.2.1", "10.8.0.5"})
                              : one_of({"2001:db8:9::9", "fd08::2"});
    if (upto(3) == 0) {  // from outside
      spec.source = is_ip4 ? one_of({"198.51.100.9", "198.51.100.10"}) : ip("2001:db8:9::9");
      spec.destination =
          is_ip4 ? one_of({"192.0.2.1", "203.0.113.5", "192.0.2.9"}) : ip("2001:db8:7::2");
    }
    constexpr std::uint8_t kProtocols[] = {kUdp, kTcp, kIcmp, 47};
    spec.protocol = kProtocols[upto(4)];
    spec.source_port = static_cast<std::uint16_t>(4000 + upto(3));
    spec.destination_port = static_cast<std::uint16_t>(80 + upto(3));
    if (spec.protocol == kIcmp) spec.icmp_type = is_ip4 ? 8 : 128;
    spec.payload = std::string(upto(40), static_cast<char>(upto(256)));
    spec.needs_checksum = upto(3) == 0 && spec.protocol != 47;
    spec.has_checksum = !is_ip4 || upto(8) != 0;
    if (spec.protocol == kIcmp && is_ip4) spec.needs_checksum = false;
    return spec;
  }
  // As the other end, which knows only what came out, answers.
  Bytes answered(BytesView sent, const PacketSpec& asked) {
    const auto packet = read_ip_frame(sent).value();
    PacketSpec back = asked;
    back.source = packet.destination, back.destination = packet.source;
    const auto port = [&](std::size_t at) { return from_big_endian<std::uint16_t>(&sent[at]); };
    if (asked.protocol == kIcmp) {
      back.source_port = port(packet.l4 + 4);
      back.icmp_type = packet.is_ip4 ? 0 : 129;
    } else if (asked.protocol != 47) {
      back.source_port = port(packet.l4 + 2), back.destination_port = port(packet.l4);
    }
    back.flags = kSyn | kAck, back.sequence = 9000;
    back.acknowledged = asked.sequence + 1 + static_cast<std::uint32_t>(asked.payload.size());
    return packet_of(back);
  }
  // What who asked should see.
  Bytes wanted(const PacketSpec& asked, BytesView answer) {
    auto frame = to_bytes(answer);
    PacketSpec back = answer_to(asked, kSyn | kAck);
    if (asked.protocol == kIcmp) {
      std::swap(back.source_port, back.destination_port);
      back.icmp_type = asked.source.is4() ? 0 : 129;
    }
    back.sequence = 9000;
    back.acknowledged = asked.sequence + 1 + static_cast<std::uint32_t>(asked.payload.size());
    return packet_of(back);
  }
  void no_two_expect_one_answer() {
    std::set<std::string> seen;
    for (const FlowReport& each : tracker->flows(now)) {
      for (const Tuple& tuple : each.flow.tuples) EXPECT_TRUE(seen.insert(tuple.text()).second);
    }
    EXPECT_LE(tracker->table().size(), tracker->table().most());
  }

  wire::testing::Random random{GetParam()};
};

TEST_P(TrackerProperty, AnswersComeBackToWhoAsked) {
  start({.nat = {.masquerade = {{.out = {kOutside}, .ports = {4000, 4007}}},
                 .forward = {{.address = kOwn4,
                              .protocol = kTcp,
                              .ports = {80, 81},
                              .to = ip("10.7.0.4"),
                              .to_port = 8080},
                             {.address = kOwn4, .protocol = kUdp, .to = ip("10.8.0.5")}},
                 .one_to_one = {{.out = {kOutside},
                                 .outside = prefix("203.0.113.0/29"),
                                 .inside = prefix("10.7.0.0/29")},
                                {.outside = prefix("2001:db8:7::/64"),
                                 .inside = prefix("fd07::/64")}}},
         .most_flows = 40});
  std::map<std::string, int> causes;
  int answers = 0;
  for (int i = 0; i < kPackets; ++i) {
    now += milliseconds(upto(400));
    const PacketSpec asked = some_packet();
    const Bytes sent = cross(packet_of(asked));
    ++causes[std::string(cause)];
    if (!sent.empty() && out != kItself && upto(3) != 0) {
      const auto at_other_end = read_ip_frame(sent).value();
      if (upto(4) == 0 && asked.protocol != 47) {
        const Bytes error =
            cross(icmp_error(sent, at_other_end.destination, asked.source.is4() ? 3 : 1, 1000));
        ASSERT_FALSE(error.empty()) << cause;
        const auto packet = read_ip_frame(error).value();
        EXPECT_EQ(packet.destination, asked.source);
        const auto quoted = read_ip(error, packet.l4 + 8, true).value();
        EXPECT_EQ(quoted.source, asked.source);
        EXPECT_EQ(quoted.destination, asked.destination);
      } else {
        const Bytes answer = answered(sent, asked);
        const Bytes back = cross(answer, port_of(at_other_end.destination));
        ASSERT_FALSE(back.empty()) << cause << ", packet " << i;
        ASSERT_EQ(to_hex(back), to_hex(wanted(asked, answer))) << "packet " << i;
        ++answers;
      }
    }
    if (i % 50 == 0) tracker->tick(now), no_two_expect_one_answer();
  }
  EXPECT_GT(answers, kPackets / 10);
  EXPECT_GT(causes["full"], 0);
  EXPECT_GT(tracker->table().evicted(), 0u);
}

INSTANTIATE_TEST_SUITE_P(, TrackerProperty, testing::Range(1U, 6U));

}  // namespace
}  // namespace godwit::net
