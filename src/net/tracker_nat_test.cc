// What the tracker makes of addresses and ports. Each packet that comes out of TrackerTest::cross()
// has right checksums.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "net/tracker_testing.hh"

namespace godwit::net {
namespace {

using testing::SizeIs;

struct Ends {
  Ip source{}, destination{};
  std::uint16_t source_port = 0, destination_port = 0;
  bool operator==(const Ends&) const = default;
  friend void PrintTo(const Ends& ends, std::ostream* out) {
    *out << Tuple{ends.source, ends.destination, ends.source_port, ends.destination_port}.text();
  }
};

struct TrackerNatTest : TrackerTest {
  static Ends ends_of(BytesView frame, std::size_t l3 = kPayloadAt) {
    const auto packet = read_ip(frame, l3, true);
    if (!packet) return {};
    Ends ends{.source = packet->source, .destination = packet->destination};
    if (const std::size_t at = port_at(frame, *packet, Side::source); at != 0) {
      ends.source_port = from_big_endian<std::uint16_t>(&frame[at]);
    }
    if (const std::size_t at = port_at(frame, *packet, Side::destination); at != 0) {
      ends.destination_port = from_big_endian<std::uint16_t>(&frame[at]);
    }
    return ends;
  }
  // Of the packet that an ICMP error quotes.
  static Ends quoted_in(BytesView frame) {
    const auto packet = read_ip_frame(frame);
    return packet ? ends_of(frame, packet->l4 + 8) : Ends{};
  }
  // The other end's answer to what came out.
  Bytes answer(BytesView frame, PacketSpec spec) {
    const Ends ends = ends_of(frame);
    spec.source = ends.destination, spec.destination = ends.source;
    spec.source_port = ends.destination_port, spec.destination_port = ends.source_port;
    if (spec.protocol == kIcmp) spec.source_port = ends.source_port;
    return cross(spec);
  }

  const Ip client = ip("10.7.0.2"), server = ip("10.8.0.5"), peer = ip("198.51.100.9");
  const TrackerConfig masquerading{.nat = {.masquerade = {{.out = {kOutside}}}}};
};

TEST_F(TrackerNatTest, MasqueradesEachProtocol) {
  start(masquerading);
  for (PacketSpec spec : {udp, tcp}) {
    for (const bool needs_checksum : {false, true}) {
      spec.needs_checksum = needs_checksum;
      const Bytes sent = cross(spec);
      EXPECT_EQ(ends_of(sent), (Ends{kOwn4, peer, 4000, spec.destination_port}));
      PacketSpec back = spec;
      back.flags = kSyn | kAck;
      EXPECT_EQ(ends_of(answer(sent, back)), (Ends{peer, client, spec.destination_port, 4000}));
    }
  }
  PacketSpec ping = udp;
  ping.protocol = kIcmp;
  const Bytes sent = cross(ping);
  EXPECT_EQ(ends_of(sent), (Ends{kOwn4, peer, 4000, 0}));
  ping.icmp_type = 0;
  EXPECT_EQ(ends_of(answer(sent, ping)), (Ends{peer, client, 0, 4000}));
  PacketSpec gre = udp;
  gre.protocol = 47;
  EXPECT_EQ(ends_of(answer(cross(gre), gre)), (Ends{peer, client}));
}

TEST_F(TrackerNatTest, UdpWithoutAChecksumStaysSo) {
  start(masquerading);
  PacketSpec spec = udp;
  spec.has_checksum = false;
  const Bytes sent = cross(spec);
  EXPECT_EQ(to_hex(BytesView(sent).subspan(kPayloadAt + 26, 2)), "0000");
}

TEST_F(TrackerNatTest, AUdpChecksumIsNeverZero) {
  PacketSpec spec = udp;
  int ones = 0;
  for (int i = 0; i <= 0xffff; ++i) {  // one of these sums comes out as zero
    spec.payload = {static_cast<char>(i >> 8), static_cast<char>(i)};
    Bytes frame = packet_of(spec);
    auto packet = read_ip_frame(frame);
    rewrite(frame, *packet, Side::source, {kOwn4, 4001});
    const auto field = from_big_endian<std::uint16_t>(&frame[kPayloadAt + 26]);
    ASSERT_NE(field, 0) << i;
    ones += field == 0xffff ? 1 : 0;
    if (i % 1024 == 0) {
      EXPECT_EQ(fault_of(frame), "");
    }
  }
  EXPECT_GT(ones, 0);
}

TEST_F(TrackerNatTest, TwoClientsWithOnePortGetTwoForAllDestinations) {
  start(masquerading);
  PacketSpec second = udp;
  second.source = ip("10.7.0.3");
  const Bytes a = cross(udp), b = cross(second);
  EXPECT_EQ(ends_of(a).source_port, 4000);
  EXPECT_NE(ends_of(b).source_port, 4000);
  EXPECT_GE(ends_of(b).source_port, 1024);
  EXPECT_EQ(ends_of(answer(a, udp)).destination, client);
  EXPECT_EQ(ends_of(answer(b, udp)).destination, second.source);
  for (const char* text : {"198.51.100.10", "198.51.100.11"}) {
    PacketSpec first = udp;
    second.destination = first.destination = ip(text);
    EXPECT_EQ(ends_of(cross(second)).source_port, ends_of(b).source_port) << "wherever it goes";
    EXPECT_EQ(ends_of(cross(first)).source_port, 4000);
  }
  now += seconds(250);
  second.destination_port = 80;
  EXPECT_EQ(ends_of(cross(second)).source_port, ends_of(b).source_port);
  now += seconds(301);
  second.destination_port = 81;
  EXPECT_EQ(ends_of(cross(second)).source_port, 4000) << "the first has long been away";
}

TEST_F(TrackerNatTest, PortsAreOfTheRangeAndAreUsedUp) {
  start({.nat = {.masquerade = {{.out = {kOutside},
                                 .to = IpRange{ip("192.0.2.8"), ip("192.0.2.8")},
                                 .ports = {5000, 5003}}}}});
  std::set<std::uint16_t> ports;
  PacketSpec spec = udp;
  for (spec.source_port = 1; spec.source_port <= 4; ++spec.source_port) {
    const Ends ends = ends_of(cross(spec));
    EXPECT_EQ(ends.source, ip("192.0.2.8"));
    ports.insert(ends.source_port);
  }
  EXPECT_EQ(ports, (std::set<std::uint16_t>{5000, 5001, 5002, 5003}));
  EXPECT_EQ(cause_of(spec), "ports-used-up");
  spec.destination_port = 54;
  EXPECT_EQ(cause_of(spec), "") << "for another destination they are free";
  now += seconds(31);
  EXPECT_EQ(cause_of(udp), "") << "and after a while";
}

TEST_F(TrackerNatTest, OneInsideAddressHasOneOutside) {
  start({.nat = {.masquerade = {{.to = IpRange{ip("192.0.2.8"), ip("192.0.2.15")}}}}});
  std::set<Ip> all;
  for (std::uint32_t host = 2; host < 60; ++host) {
    PacketSpec spec = udp;
    spec.source = Ip::of4(0x0a070000 + host);
    const Ip outside = ends_of(cross(spec)).source;
    spec.destination = ip("198.51.100.77");
    EXPECT_EQ(ends_of(cross(spec)).source, outside);
    all.insert(outside);
  }
  EXPECT_THAT(all, SizeIs(8));
}

TEST_F(TrackerNatTest, MasqueradesOnlyWhatItIsToldTo) {
  start({.nat = {.masquerade = {{.out = {kOutside}, .from = {prefix("10.7.0.0/24")}}}}});
  PacketSpec spec = udp;
  spec.source = ip("10.7.1.2");
  EXPECT_EQ(ends_of(cross(spec)).source, spec.source) << "from another network";
  spec.source = client;
  spec.destination = server;
  EXPECT_EQ(ends_of(cross(spec)).source, client) << "to another port";
  spec.destination = ip("10.7.0.1");
  EXPECT_EQ(ends_of(cross(spec)).source, client) << "to the router";
}

TEST_F(TrackerNatTest, ForwardsPorts) {
  start({.nat = {.forward = {{.address = kOwn4,
                              .protocol = kTcp,
                              .ports = {8000, 8009},
                              .to = server,
                              .to_port = 80}}}});
  PacketSpec spec = tcp;
  spec.source = peer, spec.destination = kOwn4, spec.destination_port = 8003;
  const Bytes sent = cross(spec);
  EXPECT_EQ(ends_of(sent), (Ends{peer, server, 4000, 83}));
  PacketSpec back = tcp;
  back.flags = kSyn | kAck;
  EXPECT_EQ(ends_of(answer(sent, back)), (Ends{kOwn4, peer, 8003, 4000}));
  spec.destination_port = 8010;
  EXPECT_EQ(ends_of(cross(spec)).destination, kOwn4) << "for the router itself";
  EXPECT_EQ(out, kItself);
}

TEST_F(TrackerNatTest, InsideClientsReachAnInsideServerByItsPublicAddress) {
  start({.nat = {.masquerade = {{.out = {kOutside}}},
                 .forward = {{.address = kOwn4, .to = ip("10.7.0.9")}}}});
  PacketSpec spec = tcp;
  spec.destination = kOwn4;
  const Bytes sent = cross(spec);
  EXPECT_EQ(out, kInside);
  EXPECT_EQ(ends_of(sent), (Ends{ip("10.7.0.1"), ip("10.7.0.9"), 4000, 80}));
  PacketSpec back = tcp;
  back.flags = kSyn | kAck;
  EXPECT_EQ(ends_of(answer(sent, back)), (Ends{kOwn4, client, 80, 4000}));
  spec.source = server;
  EXPECT_EQ(ends_of(cross(spec)).source, server) << "its answers come by here anyway";
}

TEST_F(TrackerNatTest, OneNetworkIsSeenAsAnother) {
  start({.nat = {.one_to_one = {
                     {.out = {kOutside},
                      .outside = prefix("203.0.113.0/24"),
                      .inside = prefix("10.7.0.0/24")},
                     {.outside = prefix("2001:db8:7::/64"), .inside = prefix("fd07::/64")}}}});
  const Bytes sent = cross(udp);
  EXPECT_EQ(ends_of(sent).source, ip("203.0.113.2"));
  EXPECT_EQ(ends_of(answer(sent, udp)).destination, client);
  PacketSpec spec = udp;
  spec.source = peer, spec.destination = ip("203.0.113.77");
  const Bytes came = cross(spec);
  EXPECT_EQ(ends_of(came).destination, ip("10.7.0.77"));
  EXPECT_EQ(ends_of(answer(came, udp)).source, ip("203.0.113.77"));
  PacketSpec six = udp;
  six.source = ip("fd07::2"), six.destination = ip("2001:db8:9::9");
  EXPECT_EQ(ends_of(cross(six)).source, ip("2001:db8:7::2"));
}

TEST_F(TrackerNatTest, MasqueradesIp6) {
  start({.nat = {.masquerade = {{.out = {kOutside}}}}});
  for (const std::uint8_t protocol :
       {std::uint8_t{kUdp}, std::uint8_t{kTcp}, std::uint8_t{kIcmp}}) {
    for (const bool needs_checksum : {false, true}) {
      PacketSpec spec{.source = ip("fd07::2"),
                      .destination = ip("2001:db8:9::9"),
                      .protocol = protocol,
                      .source_port = static_cast<std::uint16_t>(4000 + protocol),
                      .icmp_type = 128,
                      .needs_checksum = needs_checksum};
      if (protocol != kIcmp) spec.destination_port = 53;
      const Bytes sent = cross(spec);
      EXPECT_EQ(ends_of(sent).source, ip("2001:db8::1"));
      spec.icmp_type = 129;
      spec.flags = kSyn | kAck;
      EXPECT_EQ(ends_of(answer(sent, spec)).destination, ip("fd07::2")) << int{protocol};
    }
  }
}

TEST_F(TrackerNatTest, ErrorsFromOutsideReachWhoSent) {
  start(masquerading);
  PacketSpec second = udp;
  second.source = ip("10.7.0.3");
  cross(udp);
  const Bytes sent = cross(second);
  for (const std::size_t quoted : {28UL, 40UL, 1000UL}) {
    const Bytes error = cross(icmp_error(sent, ip("203.0.113.1"), 11, quoted));
    EXPECT_EQ(ends_of(error), (Ends{ip("203.0.113.1"), second.source}));
    EXPECT_EQ(quoted_in(error), (Ends{second.source, peer, 4000, 53}));
  }
  const auto flows = tracker->flows(now);
  EXPECT_THAT(flows, SizeIs(2));
  EXPECT_FALSE(flows[1].flow.is_replied) << "an error is no answer";
}

TEST_F(TrackerNatTest, ErrorsFromInsideAreOfThePublicAddress) {
  start(masquerading);
  const Bytes sent = cross(udp), back = answer(sent, udp);
  const Bytes error = cross(icmp_error(back, client, 3));
  EXPECT_EQ(ends_of(error), (Ends{kOwn4, peer}));
  EXPECT_EQ(quoted_in(error), (Ends{peer, kOwn4, 53, 4000}));
}

TEST_F(TrackerNatTest, ErrorsAboutForwardedPacketsAndPings) {
  start({.nat = {.masquerade = {{.out = {kOutside}}},
                 .forward = {{.address = kOwn4,
                              .protocol = kTcp,
                              .ports = {8080, 8080},
                              .to = server,
                              .to_port = 80}}}});
  PacketSpec spec = tcp;
  spec.source = peer, spec.destination = kOwn4, spec.destination_port = 8080;
  const Bytes came = cross(spec);
  ASSERT_EQ(ends_of(came).destination, server);
  const Bytes error = cross(icmp_error(came, server, 3, 40));
  EXPECT_EQ(ends_of(error), (Ends{kOwn4, peer}));
  EXPECT_EQ(quoted_in(error), (Ends{peer, kOwn4, 4000, 8080}));
  const Bytes hop = cross(icmp_error(came, ip("10.8.0.2"), 11));
  EXPECT_EQ(ends_of(hop).source, kOwn4) << "who is inside is not told";
  PacketSpec ping = udp, other_ping = udp;
  ping.protocol = other_ping.protocol = kIcmp;
  other_ping.source = ip("10.7.0.3");
  cross(ping);
  const Bytes unreachable = cross(icmp_error(cross(other_ping), ip("203.0.113.1"), 3));
  EXPECT_EQ(quoted_in(unreachable), (Ends{other_ping.source, peer, 4000, 0}));
}

TEST_F(TrackerNatTest, ErrorsOfIp6) {
  start(masquerading);
  PacketSpec spec{.source = ip("fd07::2"),
                  .destination = ip("2001:db8:9::9"),
                  .source_port = 4000,
                  .destination_port = 53};
  const Bytes sent = cross(spec);
  const Bytes too_big = cross(icmp_error(sent, ip("2001:db8:5::1"), 2, 1000));
  EXPECT_EQ(ends_of(too_big), (Ends{ip("2001:db8:5::1"), ip("fd07::2")}));
  EXPECT_EQ(quoted_in(too_big), (Ends{ip("fd07::2"), spec.destination, 4000, 53}));
}

TEST_F(TrackerNatTest, ErrorsThatNobodyCausedAreInvalid) {
  start(masquerading);
  const Bytes sent = cross(udp);
  PacketSpec never = udp;
  never.source_port = 4001;
  cross(icmp_error(packet_of(never), ip("203.0.113.1"), 11));
  EXPECT_EQ(cause, "invalid");
  Bytes damaged = icmp_error(sent, ip("203.0.113.1"), 11);
  damaged.back() ^= std::byte{1};
  cross(damaged);
  EXPECT_EQ(cause, "invalid");
  cross(icmp_error(sent, ip("203.0.113.1"), 5));
  EXPECT_EQ(cause, "invalid") << "a redirect names an address of the other network";
  cross(icmp_error(sent, ip("203.0.113.1"), 11, 27));
  EXPECT_EQ(cause, "invalid") << "it does not quote the ports";
}

TEST_F(TrackerNatTest, SuperFramesAreAsGoodAsAny) {
  start({.nat = {.masquerade = {{.to = IpRange{ip("192.0.2.8"), ip("192.0.2.8")},
                                 .ports = {1024, 2000}},
                                {.to = IpRange{ip("2001:db8::8"), ip("2001:db8::8")}}}},
         .pick_up = PickUp::always});
  wire::testing::Random random(1);
  for (const bool is_ip6 : {false, true}) {
    for (const bool is_udp : {false, true}) {
      const Bytes super = wire::testing::super_frame({.is_ip6 = is_ip6, .is_udp = is_udp}, random);
      const Bytes sent = cross(super, kInside);
      ASSERT_FALSE(sent.empty()) << cause;
      EXPECT_TRUE(wire::testing::has_right_seed(sent));
      EXPECT_EQ(ends_of(sent).source, is_ip6 ? ip("2001:db8::8") : ip("192.0.2.8"));
      if (!is_ip6) {
        EXPECT_NE(ends_of(sent).source_port, 40'000);
      }
    }
  }
}

TEST_F(TrackerNatTest, WithoutAnAddressNothingIsMasqueraded) {
  start(masquerading);
  Bytes frame = packet_of(udp);
  auto packet = read_ip_frame(frame);
  Ticket ticket;
  EXPECT_EQ(tracker->arrive(frame, *packet, kInside, now, ticket), "");
  EXPECT_EQ(tracker->leave(frame, *packet, ticket, kOutside, Ip{}, now), "no-address");
  EXPECT_EQ(tracker->leave(frame, *packet, ticket, kOutside, ip("2001:db8::1"), now), "no-address");
}

TEST_F(TrackerNatTest, FlowsWithOneAnswerAreTakenApart) {
  start({.nat = {.forward = {{.address = kOwn4, .to = server}}}});
  PacketSpec spec = tcp;
  spec.destination = server;
  EXPECT_EQ(ends_of(cross(spec)).source_port, 4000);
  spec.destination = kOwn4;
  const Bytes second = cross(spec);
  EXPECT_EQ(ends_of(second).destination, server);
  EXPECT_NE(ends_of(second).source_port, 4000);
  PacketSpec back = tcp;
  back.flags = kSyn | kAck;
  EXPECT_EQ(ends_of(answer(second, back)), (Ends{kOwn4, client, 80, 4000}));
}

TEST_F(TrackerNatTest, AFlowKeepsItsAddressesWhenTheRulesChange) {
  start(masquerading);
  const Bytes sent = cross(udp);
  tracker->configure({});
  EXPECT_EQ(ends_of(answer(sent, udp)).destination, client);
  EXPECT_EQ(ends_of(cross(udp)).source, kOwn4);
}

TEST_F(TrackerNatTest, UndoingGivesBackWhatCame) {
  start(masquerading);
  const Bytes sent = cross(udp);
  const Ends ends = ends_of(sent);
  PacketSpec back = answer_to(udp);
  back.destination = ends.source;
  const Bytes came = packet_of(back);
  Bytes frame = came;
  auto packet = read_ip_frame(frame);
  Ticket ticket;
  EXPECT_EQ(tracker->arrive(frame, *packet, kOutside, now, ticket), "");
  EXPECT_EQ(packet->destination, client);
  Tracker::undo(frame, *packet, ticket);
  EXPECT_EQ(frame, came);
}

}  // namespace
}  // namespace godwit::net
