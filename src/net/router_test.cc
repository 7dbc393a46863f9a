#include "net/router.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "net/dhcp_server.hh"
#include "net/net_testing.hh"

namespace godwit::net {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using wire::testing::fault_in;
using wire::testing::folded_sum;

constexpr PortIndex kLan = 0, kWan = 1;
constexpr Mac kLanMac = 0x020000000001, kWanMac = 0x020000000002, kShared = 0x020000000099;
constexpr Mac kHost = 0x0200000000a1, kPeer = 0x0200000000b1;

Ip ip(const char* text) { return parse_ip(text).value(); }
IpPrefix prefix(const char* text) { return parse_ip_prefix(text).value(); }

RouterConfig config() {
  RouterConfig made;
  made.ports[kLan] = {.mac = kLanMac,
                      .addresses = {prefix("10.7.0.1/24"), prefix("fd00:7::1/64")},
                      .advertises = true,
                      .dns = {ip("fd00:7::53")}};
  made.ports[kWan] = {.mac = kWanMac,
                      .addresses = {prefix("192.0.2.1/24"), prefix("2001:db8::1/64")}};
  made.routes = {{.to = prefix("0.0.0.0/0"), .via = ip("192.0.2.254")},
                 {.to = prefix("203.0.113.0/24")}};
  return made;
}

// UDP from kHost through the router.
Bytes udp(const char* source, const char* destination, std::size_t payload = 32,
          std::uint8_t hops = 64) {
  Bytes frame;
  write_udp({.source_mac = kHost,
             .destination_mac = kLanMac,
             .source = ip(source),
             .destination = ip(destination),
             .hops = hops},
            4000, 53, Bytes(payload, std::byte{0x5a}), frame);
  return frame;
}

Bytes echo(const char* source, const char* destination) {
  const bool is_ip4 = ip(source).is4();
  Bytes frame;
  write_ip({.source_mac = kHost,
            .destination_mac = kLanMac,
            .source = ip(source),
            .destination = ip(destination)},
           is_ip4 ? kIcmp : kIcmp6, 12, frame);
  const std::size_t l4 = frame.size();
  Writer(frame).u8(is_ip4 ? 8 : 128).u8(0).u16(0).u32(0x00070001).u32(0x01020304);
  const std::uint64_t pseudo = is_ip4 ? 0 : pseudo_sum(ip(source), ip(destination), kIcmp6, 12);
  to_big_endian(checksum_of(BytesView(frame).subspan(l4), pseudo), &frame[l4 + 2]);
  return frame;
}

struct RouterTest : testing::Test {
  using Out = std::map<PortIndex, std::vector<Bytes>>;

  Out send(PortIndex port, const Bytes& frame) {
    Received out;
    give(router, port, frame, now, out);
    for (const auto& [to, frames] : out.frames) {
      for (const Bytes& each : frames) EXPECT_EQ(fault(each), "");
    }
    return out.frames;
  }
  // Of IP; ARP has nothing to verify.
  static std::string fault(BytesView frame) {
    if (read_arp(frame)) return "";
    const BytesView ip = frame.subspan(kPayloadAt);
    const bool is_ip4 = (ip[0] >> 4) == std::byte{4};
    const bool is_icmp = ip[is_ip4 ? 9 : 6] == std::byte{is_ip4 ? kIcmp : kIcmp6};
    if (!is_icmp) return fault_in(frame.subspan(wire::kVnetBytes));
    const BytesView l4 = ip.subspan(is_ip4 ? 20 : 40);
    const std::uint64_t pseudo = is_ip4 ? 0 : folded_sum(ip.subspan(8, 32), kIcmp6 + l4.size());
    if (is_ip4 && folded_sum(ip.first(20), 0) != 0xffff) return "IP header checksum";
    return folded_sum(l4, pseudo) == 0xffff ? "" : "ICMP checksum";
  }
  Out pass(Nanoseconds time) {
    Received out;
    now += time;
    router.tick(now, out);
    return out.frames;
  }
  void know(PortIndex port, const char* address, Mac mac) {
    Bytes frame;
    if (ip(address).is4()) {
      const Ip own = router_config.ports[port].addresses[0].address;
      write_arp({.sender_mac = mac, .sender = ip(address), .target = own}, kBroadcast, mac, frame);
    } else {
      const Ip own = router_config.ports[port].addresses[1].address;
      write_solicitation({.source_mac = mac,
                          .destination_mac = mac_of_group(solicited_group_of(own)),
                          .source = ip(address),
                          .destination = solicited_group_of(own)},
                         own, frame);
    }
    EXPECT_EQ(send(port, frame)[port].size(), 1u) << "an answer";
  }
  void know_all() {
    know(kLan, "10.7.0.9", kHost);
    know(kLan, "fd00:7::9", kHost);
    know(kWan, "192.0.2.254", kPeer);
    know(kWan, "2001:db8::9", kPeer);
  }
  std::uint64_t drops(PortIndex port, std::string_view cause) {
    const auto counters = router.counters()[port];
    const auto found = counters.drops.find(cause);
    return found == counters.drops.end() ? 0 : found->second;
  }
  void use(const RouterConfig& other) {
    router_config = other;
    router = Router(other, 7);
    pass({});
  }
  // Type and code of the ICMP error at `port`, whose quoted packet is `about`'s.
  static std::pair<int, int> error_in(const Out& out, PortIndex port, const Bytes& about) {
    if (!out.contains(port) || out.at(port).size() != 1) return {-1, -1};
    const Bytes& frame = out.at(port)[0];
    const auto packet = read_ip_frame(frame).value();
    const auto quoted = read_ip(frame, packet.l4 + 8, true).value();
    const auto original = read_ip_frame(about).value();
    EXPECT_EQ(quoted.source, original.source);
    EXPECT_EQ(quoted.destination, original.destination);
    EXPECT_EQ(quoted.hops, original.hops);
    EXPECT_EQ(packet.destination, original.source);
    return {std::to_integer<int>(frame[packet.l4]), std::to_integer<int>(frame[packet.l4 + 1])};
  }

  RouterConfig router_config = config();
  Router router{config(), 7};
  Instant now{};
};

TEST_F(RouterTest, ForwardsAndKeepsChecksumsRight) {
  know_all();
  for (const auto& [source, destination, to] : {std::tuple("10.7.0.9", "198.51.100.7", kWan),
                                                {"10.7.0.9", "192.0.2.254", kWan},
                                                {"fd00:7::9", "2001:db8::9", kWan}}) {
    const Bytes sent = udp(source, destination);
    const auto out = send(kLan, sent);
    ASSERT_EQ(out.size(), 1u);
    ASSERT_EQ(out.at(to).size(), 1u);
    const Bytes& frame = out.at(to)[0];
    EXPECT_EQ(mac_at(&frame[kMacsAt]), kPeer);
    EXPECT_EQ(mac_at(&frame[kMacsAt + 6]), kWanMac);
    const auto packet = read_ip_frame(frame).value();
    EXPECT_EQ(packet.hops, 63);
    EXPECT_EQ(to_hex(BytesView(frame).subspan(packet.l4)),
              to_hex(BytesView(sent).subspan(packet.l4)));
  }
}

TEST_F(RouterTest, CutsOffWhatPadsAShortFrame) {
  know_all();
  Bytes padded = udp("10.7.0.9", "192.0.2.254", 1);
  const std::size_t size = padded.size();
  padded.resize(size + 17);
  EXPECT_EQ(send(kLan, padded)[kWan][0].size(), size);
}

TEST_F(RouterTest, AsksForANeighbourAndSendsWhatWaited) {
  const auto asked = send(kLan, udp("10.7.0.9", "192.0.2.77"));
  ASSERT_EQ(asked.at(kWan).size(), 1u);
  EXPECT_EQ(read_arp(asked.at(kWan)[0]), (Arp{.is_request = true,
                                              .sender_mac = kWanMac,
                                              .sender = ip("192.0.2.1"),
                                              .target = ip("192.0.2.77")}));
  EXPECT_TRUE(send(kLan, udp("10.7.0.9", "192.0.2.77", 33)).empty()) << "asked once";
  Bytes answer;
  write_arp({.is_request = false,
             .sender_mac = kPeer,
             .sender = ip("192.0.2.77"),
             .target_mac = kWanMac,
             .target = ip("192.0.2.1")},
            kWanMac, kPeer, answer);
  const auto out = send(kWan, answer);
  ASSERT_EQ(out.at(kWan).size(), 2u);
  EXPECT_LT(out.at(kWan)[0].size(), out.at(kWan)[1].size()) << "in their order";
  EXPECT_EQ(mac_at(&out.at(kWan)[0][kMacsAt]), kPeer);
}

TEST_F(RouterTest, SaysThatANeighbourDoesNotAnswer) {
  know_all();
  pass({});  // announcements
  const Bytes sent = udp("10.7.0.9", "192.0.2.77");
  EXPECT_EQ(send(kLan, sent)[kWan].size(), 1u);
  EXPECT_EQ(pass(seconds(1))[kWan].size(), 1u);
  EXPECT_EQ(pass(seconds(1))[kWan].size(), 1u);
  const auto out = pass(seconds(1));
  ASSERT_EQ(out.at(kLan).size(), 1u);
  const auto packet = read_ip_frame(out.at(kLan)[0]).value();
  EXPECT_EQ(out.at(kLan)[0][packet.l4], std::byte{3});
  EXPECT_EQ(out.at(kLan)[0][packet.l4 + 1], std::byte{1});
  EXPECT_EQ(drops(kWan, "unresolved"), 1u);
}

TEST_F(RouterTest, AsksANeighbourThatIsUsedAgain) {
  know_all();
  pass({});
  send(kLan, udp("10.7.0.9", "192.0.2.254"));
  const auto asked = pass(seconds(31));
  ASSERT_EQ(asked.at(kWan).size(), 1u) << "and not the one that nobody used";
  EXPECT_EQ(mac_at(&asked.at(kWan)[0][kMacsAt]), kPeer);
  EXPECT_EQ(router.neighbours().entries().size(), 1u);
}

TEST_F(RouterTest, TellsWhyItDoesNotForward) {
  know_all();
  Bytes sent = udp("10.7.0.9", "192.0.2.254", 32, 1);
  EXPECT_EQ(error_in(send(kLan, sent), kLan, sent), std::pair(11, 0));
  sent = udp("fd00:7::9", "2001:db8::9", 32, 1);
  EXPECT_EQ(error_in(send(kLan, sent), kLan, sent), std::pair(3, 0));
  sent = udp("10.7.0.9", "203.0.113.5");
  EXPECT_EQ(error_in(send(kLan, sent), kLan, sent), std::pair(3, 0)) << "a route to nowhere";
  sent = udp("fd00:7::9", "fd00:8::1");
  EXPECT_EQ(error_in(send(kLan, sent), kLan, sent), std::pair(1, 0));
  sent = udp("10.7.0.9", "10.7.0.1");
  EXPECT_EQ(error_in(send(kLan, sent), kLan, sent), std::pair(3, 3));
  sent = udp("fd00:7::9", "fd00:7::1");
  EXPECT_EQ(error_in(send(kLan, sent), kLan, sent), std::pair(1, 4));
  EXPECT_EQ(drops(kLan, "hops"), 2u);
  EXPECT_EQ(drops(kLan, "no-route"), 2u);
}

TEST_F(RouterTest, NeverTellsAnErrorOfAnErrorOrOfMany) {
  know_all();
  Bytes sent = udp("10.7.0.9", "10.7.0.1");
  const auto told = send(kLan, sent);
  Bytes error = told.at(kLan)[0];
  // Back to where nothing leads, as if a host had sent it on.
  const auto packet = read_ip_frame(error).value();
  write_mac(kLanMac, &error[kMacsAt]);
  ip("10.7.0.9").write(&error[packet.l3 + 12]);
  ip("203.0.113.5").write(&error[packet.l3 + 16]);
  to_big_endian(std::uint16_t{0}, &error[packet.l3 + 10]);
  to_big_endian(checksum_of(BytesView(error).subspan(packet.l3, 20)), &error[packet.l3 + 10]);
  EXPECT_TRUE(send(kLan, error).empty());
  EXPECT_EQ(drops(kLan, "no-route"), 1u);
  for (int i = 0; i < 200; ++i) send(kLan, udp("10.7.0.9", "203.0.113.5"));
  EXPECT_LT(router.counters()[kLan].tx_frames, 60u) << "so many at once";
}

TEST_F(RouterTest, CutsWhatIsTooLongOrSaysSo) {
  RouterConfig narrow = config();
  narrow.ports[kWan].mtu = 1280;
  use(narrow);
  know_all();
  const Bytes six = udp("fd00:7::9", "2001:db8::9", 1300);
  auto out = send(kLan, six);
  EXPECT_EQ(error_in(out, kLan, six), std::pair(2, 0));
  const auto packet6 = read_ip_frame(out.at(kLan)[0]).value();
  EXPECT_EQ(from_big_endian<std::uint32_t>(&out.at(kLan)[0][packet6.l4 + 4]), 1280u);

  Bytes whole = udp("10.7.0.9", "192.0.2.254", 3000);
  auto whole_packet = read_ip_frame(whole).value();
  Received received;
  give(router, kLan, whole, now, received);
  const auto pieces = received.frames.at(kWan);
  ASSERT_EQ(pieces.size(), 3u);
  Bytes again;
  for (const Bytes& piece : pieces) {
    const auto packet = read_ip_frame(piece).value();
    EXPECT_LE(packet.end - packet.l3, 1280u);
    EXPECT_EQ(packet.fragment_offset, again.size());
    EXPECT_EQ(packet.has_more, &piece != &pieces.back());
    append(again, BytesView(piece).subspan(packet.l4, packet.end - packet.l4));
  }
  EXPECT_EQ(to_hex(again), to_hex(BytesView(whole).subspan(whole_packet.l4)));

  whole[whole_packet.l3 + 6] |= std::byte{0x40};
  to_big_endian(std::uint16_t{0}, &whole[whole_packet.l3 + 10]);
  to_big_endian(checksum_of(BytesView(whole).subspan(whole_packet.l3, 20)),
                &whole[whole_packet.l3 + 10]);
  out = send(kLan, whole);
  EXPECT_EQ(error_in(out, kLan, whole), std::pair(3, 4));
  const auto packet4 = read_ip_frame(out.at(kLan)[0]).value();
  EXPECT_EQ(from_big_endian<std::uint32_t>(&out.at(kLan)[0][packet4.l4 + 4]), 1280u);
}

// TCP super-frames go as they are, if their segments fit.
TEST_F(RouterTest, SuperFramesAreOnePacket) {
  know_all();
  wire::testing::Random random(3);
  for (const bool is_ip6 : {false, true}) {
    for (const int size : {1400, 1428, 1429, 1448, 1449}) {
      const bool fits = size + (is_ip6 ? 40 : 20) + 20 + 12 <= 1500;
      Bytes frame = wire::testing::super_frame(
          {.is_ip6 = is_ip6, .gso_size = static_cast<std::uint16_t>(size)}, random);
      write_mac(kLanMac, &frame[kMacsAt]);
      write_mac(kHost, &frame[kMacsAt + 6]);
      const auto packet = read_ip_frame(frame).value();
      RouterConfig with_route = config();
      with_route.routes.push_back(
          {.to = {packet.destination, static_cast<std::uint8_t>(is_ip6 ? 128 : 32)},
           .via = ip(is_ip6 ? "2001:db8::9" : "192.0.2.254")});
      router.configure(with_route);
      Received out;
      give(router, kLan, frame, now, out);
      ASSERT_EQ(out.frames[kWan].size(), fits ? 1u : 0u) << size << is_ip6;
      if (!fits) continue;
      EXPECT_TRUE(wire::check_vnet(out.frames[kWan][0]));
      for (const Bytes& piece : wire::testing::offload(out.frames[kWan][0])) {
        EXPECT_EQ(fault_in(piece), "");
      }
    }
  }
}

TEST_F(RouterTest, AnswersEchoAtAllOfItsAddresses) {
  for (const auto& [source, destination] :
       {std::pair("10.7.0.9", "10.7.0.1"), {"10.7.0.9", "192.0.2.1"}, {"fd00:7::9", "fd00:7::1"}}) {
    const auto out = send(kLan, echo(source, destination));
    ASSERT_EQ(out.at(kLan).size(), 1u) << destination;
    const auto packet = read_ip_frame(out.at(kLan)[0]).value();
    EXPECT_EQ(packet.source, ip(destination));
    EXPECT_EQ(packet.destination, ip(source));
    EXPECT_EQ(mac_at(&out.at(kLan)[0][kMacsAt]), kHost);
  }
}

TEST_F(RouterTest, WhatMayNotBeOnALinkGoesNowhere) {
  know_all();
  for (const auto& [source, destination] : {std::pair("10.7.0.1", "192.0.2.254"),
                                            {"127.0.0.1", "192.0.2.254"},
                                            {"224.0.0.5", "192.0.2.254"},
                                            {"10.7.0.9", "127.0.0.1"},
                                            {"10.7.0.9", "169.254.1.1"},
                                            {"fe80::9", "2001:db8::9"},
                                            {"0.0.0.0", "192.0.2.254"}}) {
    EXPECT_TRUE(send(kLan, udp(source, destination)).empty()) << source << destination;
  }
  EXPECT_EQ(drops(kLan, "martian"), 7u);
  Bytes frame = udp("10.7.0.9", "192.0.2.254");
  write_mac(kPeer, &frame[kMacsAt]);
  EXPECT_TRUE(send(kLan, frame).empty());
  write_mac(kBroadcast, &frame[kMacsAt]);
  EXPECT_TRUE(send(kLan, frame).empty());
  EXPECT_EQ(drops(kLan, "mac"), 1u);
  EXPECT_EQ(drops(kLan, "group"), 1u);
}

TEST_F(RouterTest, SpeaksNeighbourDiscovery) {
  const Ip own = ip("fd00:7::1");
  Bytes asked;
  write_solicitation({.source_mac = kHost,
                      .destination_mac = mac_of_group(solicited_group_of(own)),
                      .source = ip("fd00:7::9"),
                      .destination = solicited_group_of(own)},
                     own, asked);
  const auto out = send(kLan, asked);
  const Bytes& answer = out.at(kLan).at(0);
  const auto found = read_discovery(answer, read_ip_frame(answer).value());
  ASSERT_TRUE(found);
  EXPECT_EQ(found->type, Discovery::advertisement);
  EXPECT_EQ(found->target, own);
  EXPECT_EQ(found->mac, kLanMac);
  EXPECT_EQ(link_local_of(0x0200000000a1).text(), "fe80::ff:fe00:a1");
  EXPECT_EQ(solicited_group_of(ip("fd00:7::12:3456")).text(), "ff02::1:ff12:3456");

  // One for ::ffff:10.7.0.9 is not about the neighbour 10.7.0.9.
  Bytes forged;
  write_solicitation({.source_mac = kHost,
                      .destination_mac = mac_of_group(solicited_group_of(own)),
                      .source = ip("fd00:7::9"),
                      .destination = solicited_group_of(own)},
                     ip("10.7.0.9"), forged);
  EXPECT_FALSE(read_discovery(forged, read_ip_frame(forged).value()));

  // Duplicate address detection: from nobody, answered to all.
  write_solicitation({.source_mac = kHost,
                      .destination_mac = mac_of_group(solicited_group_of(own)),
                      .source = ip("::"),
                      .destination = solicited_group_of(own)},
                     own, asked);
  EXPECT_EQ(read_ip_frame(send(kLan, asked).at(kLan).at(0))->destination, ip("ff02::1"));

  // From another network, hops are fewer.
  asked[read_ip_frame(asked)->l3 + 7] = std::byte{254};
  EXPECT_TRUE(send(kLan, asked).empty());
}

TEST_F(RouterTest, AdvertisesItselfWhereItIsToldTo) {
  const auto out = pass({});
  ASSERT_EQ(out.at(kLan).size(), 3u) << "two addresses, and itself";
  const Bytes& frame = out.at(kLan)[2];
  EXPECT_EQ(fault(frame), "");
  const auto packet = read_ip_frame(frame).value();
  EXPECT_EQ(packet.source, link_local_of(kLanMac));
  EXPECT_EQ(packet.hops, 255);
  // RFC 4861, 4.2 with options 1, 5, 3 and 25.
  EXPECT_THAT(to_hex(BytesView(frame).subspan(packet.l4 + 4)),
              "40000708"
              "00000000"
              "00000000"
              "0101020000000001"
              "05010000000005dc"
              "030440c0"
              "00015180"
              "00003840"
              "00000000"
              "fd000007000000000000000000000000"
              "19030000"
              "00000708"
              "fd000007000000000000000000000053");
  EXPECT_EQ(out.at(kWan).size(), 2u);
  EXPECT_TRUE(pass(seconds(100)).empty());
  EXPECT_EQ(pass(seconds(100))[kLan].size(), 1u);
}

// As at each site of a network that is stretched: hosts learn the shared MAC and no other.
TEST_F(RouterTest, AGatewayThatIsSharedHidesWhereItIs) {
  RouterConfig shared = config();
  shared.ports[kLan].shared_mac = kShared;
  use(shared);
  Bytes asked;
  write_arp({.sender_mac = kHost, .sender = ip("10.7.0.9"), .target = ip("10.7.0.1")}, kBroadcast,
            kHost, asked);
  const Bytes answer = send(kLan, asked).at(kLan).at(0);
  EXPECT_EQ(read_arp(answer)->sender_mac, kShared);
  EXPECT_EQ(mac_at(&answer[kMacsAt + 6]), kLanMac) << "where this instance is";

  Bytes sent = udp("10.7.0.9", "192.0.2.1");
  write_mac(kShared, &sent[kMacsAt]);
  EXPECT_EQ(send(kLan, sent)[kLan].size(), 1u) << "taken at both";

  Bytes in = udp("192.0.2.254", "10.7.0.88");
  write_mac(kWanMac, &in[kMacsAt]);
  const auto question = read_arp(send(kWan, in).at(kLan).at(0)).value();
  EXPECT_EQ(question.sender, ip("0.0.0.0")) << "or hosts would take it for the gateway's place";
  EXPECT_EQ(question.sender_mac, kLanMac);
}

TEST_F(RouterTest, AnswersForOthersAsAProxy) {
  RouterConfig proxy = config();
  proxy.ports[kLan].is_proxy = true;
  Bytes asked;
  write_arp({.sender_mac = kHost, .sender = ip("10.7.0.9"), .target = ip("198.51.100.7")},
            kBroadcast, kHost, asked);
  EXPECT_TRUE(send(kLan, asked).empty());
  use(proxy);
  EXPECT_EQ(read_arp(send(kLan, asked).at(kLan).at(0))->sender_mac, kLanMac);
  write_arp({.sender_mac = kHost, .sender = ip("10.7.0.9"), .target = ip("10.7.0.10")}, kBroadcast,
            kHost, asked);
  EXPECT_TRUE(send(kLan, asked).empty()) << "it is at that very network";
}

TEST_F(RouterTest, RoutesBySource) {
  RouterConfig policy = config();
  policy.routes.push_back(
      {.from = prefix("10.7.0.128/25"), .to = prefix("0.0.0.0/0"), .via = ip("192.0.2.253")});
  use(policy);
  know(kWan, "192.0.2.254", kPeer);
  know(kWan, "192.0.2.253", kPeer + 1);
  const auto to = [&](const char* source) {
    return mac_at(&send(kLan, udp(source, "198.51.100.7")).at(kWan).at(0)[kMacsAt]);
  };
  EXPECT_EQ(to("10.7.0.9"), kPeer);
  EXPECT_EQ(to("10.7.0.200"), kPeer + 1);
}

TEST_F(RouterTest, RelaysDhcp) {
  RouterConfig relaying = config();
  relaying.ports[kLan].dhcp_relay = ip("192.0.2.2");
  use(relaying);
  constexpr Mac kServerMac = 0x0200000000d1;
  DhcpServer server({.port = 0,
                     .address = prefix("192.0.2.2/24"),
                     .mac = kServerMac,
                     .networks = {{.prefix = prefix("10.7.0.0/24"),
                                   .first = ip("10.7.0.100"),
                                   .last = ip("10.7.0.100")}}});
  know(kWan, "192.0.2.2", kServerMac);
  Bytes payload;
  Writer(payload).u8(1).u8(1).u8(6).u8(0).u32(0x1234).u64(0).u64(0).u32(0);
  append_mac(kHost, payload);
  payload.resize(236);
  Writer(payload).u32(0x63825363).u8(53).u8(1).u8(1).u8(255);
  payload.resize(300);
  Bytes asked;
  write_udp({.source_mac = kHost,
             .destination_mac = kBroadcast,
             .source = ip("0.0.0.0"),
             .destination = ip("255.255.255.255")},
            68, 67, payload, asked);
  const auto relayed = send(kLan, asked);
  ASSERT_EQ(relayed.at(kWan).size(), 1u);
  Received out;
  give(server, 0, relayed.at(kWan)[0], now, out);
  ASSERT_EQ(out.frames[0].size(), 1u);
  const auto answered = send(kWan, out.frames[0][0]);
  ASSERT_EQ(answered.at(kLan).size(), 1u);
  const Bytes& answer = answered.at(kLan)[0];
  const auto packet = read_ip_frame(answer).value();
  EXPECT_EQ(packet.destination, ip("10.7.0.100"));
  EXPECT_EQ(mac_at(&answer[kMacsAt]), kHost);
  EXPECT_EQ(from_big_endian<std::uint16_t>(&answer[packet.l4 + 2]), 68);

  Bytes forged;
  const auto said = read_ip_frame(out.frames[0][0]).value();
  write_udp({.source_mac = kPeer,
             .destination_mac = kWanMac,
             .source = ip("192.0.2.66"),
             .destination = ip("10.7.0.1")},
            67, 67, BytesView(out.frames[0][0]).subspan(said.l4 + kUdpBytes), forged);
  EXPECT_TRUE(send(kWan, forged).empty()) << "another's word for the server's";
}

TEST_F(RouterTest, MasqueradesAndFilters) {
  RouterConfig nat = config();
  nat.tracker = TrackerConfig{
      .filter = {.rules = {{.action = Action::reject, .to = {prefix("198.51.100.66")}},
                           {.action = Action::drop, .in = {kWan}}}},
      .nat = {.masquerade = {{.out = {kWan}, .from = {prefix("10.7.0.0/24")}}}}};
  use(nat);
  know_all();
  const Bytes sent = udp("10.7.0.9", "198.51.100.7");
  const auto out = send(kLan, sent);
  const Bytes& frame = out.at(kWan).at(0);
  const auto packet = read_ip_frame(frame).value();
  EXPECT_EQ(packet.source, ip("192.0.2.1"));
  // The answer finds its way back; what nobody asked for does not.
  const auto port = from_big_endian<std::uint16_t>(&frame[packet.l4]);
  const auto answer = [&](std::uint16_t to) {
    Bytes made;
    write_udp({.source_mac = kPeer,
               .destination_mac = kWanMac,
               .source = ip("198.51.100.7"),
               .destination = ip("192.0.2.1")},
              53, to, Bytes(8), made);
    return made;
  };
  EXPECT_EQ(read_ip_frame(send(kWan, answer(port)).at(kLan).at(0))->destination, ip("10.7.0.9"));
  EXPECT_TRUE(send(kWan, answer(static_cast<std::uint16_t>(port + 1))).empty());
  const Bytes refused = udp("10.7.0.9", "198.51.100.66");
  EXPECT_EQ(error_in(send(kLan, refused), kLan, refused), std::pair(3, 13));
  // Errors of the router's own quote what came, not what it became.
  Bytes last = udp("10.7.0.9", "198.51.100.7", 32, 1);
  EXPECT_EQ(error_in(send(kLan, last), kLan, last), std::pair(11, 0));
  // Ping from inside to the router, and from outside, which is dropped.
  EXPECT_EQ(send(kLan, echo("10.7.0.9", "10.7.0.1"))[kLan].size(), 1u);
  Bytes outside = echo("198.51.100.7", "192.0.2.1");
  write_mac(kWanMac, &outside[kMacsAt]);
  EXPECT_TRUE(send(kWan, outside).empty());
}

TEST_F(RouterTest, GoesOnWithWhatItKnowsWhenItIsToldMore) {
  know_all();
  RouterConfig more = config();
  more.ports[5] = {.mac = 0x020000000005, .addresses = {prefix("10.8.0.1/24")}};
  more.routes.push_back({.to = prefix("203.0.113.7/32"), .via = ip("192.0.2.254")});
  router.configure(more);
  EXPECT_EQ(send(kLan, udp("10.7.0.9", "203.0.113.7"))[kWan].size(), 1u);
  EXPECT_EQ(router.neighbours().entries().size(), 4u);
  more.ports.erase(kWan);
  more.routes.clear();
  router.configure(more);
  EXPECT_EQ(router.neighbours().entries().size(), 2u);
  EXPECT_EQ(drops(kLan, "no-route"), 0u);
}

TEST_F(RouterTest, ChecksItsConfiguration) {
  const auto refusal = [](auto change) {
    RouterConfig changed = config();
    change(changed);
    const auto good = check(changed);
    return good ? std::string() : good.error().text;
  };
  EXPECT_EQ(refusal([](RouterConfig&) {}), "");
  EXPECT_THAT(refusal([](auto& c) { c.routes[0].via = ip("10.9.0.1"); }), HasSubstr("in no port"));
  EXPECT_THAT(refusal([](auto& c) { c.routes[0].via = ip("192.0.2.1"); }), HasSubstr("itself"));
  EXPECT_THAT(refusal([](auto& c) { c.routes[0].to = prefix("10.0.0.1/8"); }),
              HasSubstr("10.0.0.0/8?"));
  EXPECT_THAT(refusal([](auto& c) { c.ports[kWan].addresses = {prefix("10.7.0.2/24")}; }),
              HasSubstr("at two ports"));
  EXPECT_THAT(refusal([](auto& c) { c.ports[kWan].addresses.push_back(prefix("10.7.0.1/32")); }),
              HasSubstr("twice"));
  EXPECT_THAT(refusal([](auto& c) { c.ports[kLan].mtu = 1000; }), HasSubstr("1280"));
  EXPECT_THAT(refusal([](auto& c) { c.ports[kLan].addresses = {prefix("224.0.0.1/24")}; }),
              HasSubstr("no address"));
  EXPECT_THAT(refusal([](auto& c) { c.ports[kLan].dhcp_relay = ip("fd00::1"); }),
              HasSubstr("relay"));
}

}  // namespace
}  // namespace godwit::net
