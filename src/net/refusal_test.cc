#include "net/refusal.hh"

#include <gtest/gtest.h>

#include "net/tracker_testing.hh"

namespace godwit::net {
namespace {

struct RefusalTest : testing::Test {
  Bytes refused(const Bytes& frame, Ip own = {}) {
    Bytes out;
    const auto packet = read_ip_frame(frame).value();
    if (!refuse(frame, packet, own, out)) return {};
    EXPECT_EQ(fault_of(out), "");
    EXPECT_EQ(mac_at(&out[kMacsAt]), mac_at(&frame[kMacsAt + 6]));
    EXPECT_EQ(read_ip_frame(out)->destination, packet.source);
    return out;
  }
  PacketSpec udp{.source = ip("10.7.0.2"),
                 .destination = ip("198.51.100.9"),
                 .source_port = 4000,
                 .destination_port = 53};
};

TEST_F(RefusalTest, ResetsTcp) {
  PacketSpec spec = udp;
  spec.protocol = kTcp;
  Bytes out = refused(packet_of(spec), ip("10.7.0.1"));
  auto packet = read_ip_frame(out).value();
  EXPECT_EQ(packet.source, udp.destination);
  auto segment = read_tcp(out, packet).value();
  EXPECT_EQ(segment.flags, kRst | kAck);
  EXPECT_EQ(segment.acknowledged, 1000 + 1 + spec.payload.size());
  spec.flags = kAck, spec.acknowledged = 77;
  out = refused(packet_of(spec));
  segment = read_tcp(out, read_ip_frame(out).value()).value();
  EXPECT_EQ(segment.flags, kRst);
  EXPECT_EQ(segment.sequence, 77u);
  spec.flags = kRst;
  EXPECT_TRUE(refused(packet_of(spec)).empty());
}

TEST_F(RefusalTest, TellsOthersThatItIsProhibited) {
  udp.payload = std::string(2000, 'x');
  const Bytes frame = packet_of(udp), out = refused(frame, ip("10.7.0.1"));
  const auto packet = read_ip_frame(out).value();
  EXPECT_EQ(packet.source, ip("10.7.0.1"));
  EXPECT_EQ(packet.end - packet.l3, 576u);
  EXPECT_EQ(to_hex(BytesView(out).subspan(packet.l4, 2)), "030d");
  EXPECT_EQ(to_hex(BytesView(out).subspan(packet.l4 + 8)),
            to_hex(BytesView(frame).subspan(kPayloadAt, 548)));
  PacketSpec six = udp;
  six.source = ip("fd07::2"), six.destination = ip("2001:db8::9");
  const Bytes out6 = refused(packet_of(six), ip("fd07::1"));
  EXPECT_EQ(to_hex(BytesView(out6).subspan(kPayloadAt + kIp6Bytes, 2)), "0101");
  EXPECT_TRUE(refused(packet_of(six), ip("10.7.0.1")).empty()) << "of the other family";
}

TEST_F(RefusalTest, SomeAreNotAnswered) {
  EXPECT_TRUE(refused(icmp_error(packet_of(udp), ip("203.0.113.1"), 11)).empty());
  PacketSpec spec = udp;
  spec.destination = ip("224.0.0.251");
  EXPECT_TRUE(refused(packet_of(spec)).empty());
  Bytes broadcast = packet_of(udp);
  write_mac(kBroadcast, &broadcast[kMacsAt]);
  EXPECT_TRUE(refused(broadcast).empty());
  const auto fragments = fragments_of(packet_of(udp), 16);
  EXPECT_FALSE(refused(fragments[0]).empty());
  EXPECT_TRUE(refused(fragments[1]).empty());
}

}  // namespace
}  // namespace godwit::net
