// Neighbours and leases, told to another instance while things go on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "net/arp.hh"
#include "net/dhcp_testing.hh"
#include "net/router.hh"
#include "net/state_testing.hh"

namespace godwit::net {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

Ip ip(const char* text) { return parse_ip(text).value(); }
IpPrefix prefix(const char* text) { return parse_ip_prefix(text).value(); }

// ---- neighbours ----

constexpr Mac kMac = 0x020000000001, kHost = 0x0200000000a0;

RouterConfig router_config() {
  RouterConfig made{.most_neighbours = 32};
  made.ports[0] = {.mac = kMac, .addresses = {prefix("10.7.0.1/24"), prefix("fd07::1/64")}};
  made.ports[1] = {.mac = kMac + 1, .addresses = {prefix("10.8.0.1/24"), prefix("fd08::1/64")}};
  return made;
}

Ip host(std::size_t network, bool is_ip4, std::size_t number) {
  if (is_ip4) return Ip::of4(static_cast<std::uint32_t>(0x0a070000 + 0x10000 * network + number));
  return {0xfd07'0000'0000'0000 + (std::uint64_t{network} << 48), number};
}

Bytes packet(Ip source, Ip destination, PortIndex at) {
  Bytes made;
  write_udp({.source_mac = kHost,
             .destination_mac = kMac + at,
             .source = source,
             .destination = destination},
            4000, 53, Bytes(32, std::byte{0x5a}), made);
  return made;
}

// That it has this address; asked for by nobody, or by the router.
Bytes arp_of(Ip sender, Mac mac, PortIndex at) {
  Bytes made;
  write_arp({.sender_mac = mac, .sender = sender, .target = host(at, true, 1)}, kBroadcast, mac,
            made);
  return made;
}

std::vector<std::string> neighbours_of(const Router& router) {
  std::vector<std::string> all;
  for (const auto& each : router.neighbours().entries()) {
    all.push_back(fmt::format("{} at {}: {}", each.who.ip.text(), each.who.port,
                              each.mac ? to_text(*each.mac) : "is asked"));
  }
  return all;
}

struct NeighbourState : testing::TestWithParam<unsigned> {
  std::size_t upto(std::size_t most) { return random() % most; }
  void run(int steps) {
    for (int i = 0; i < steps; ++i) {
      Received out;
      now += milliseconds(upto(300));
      const auto at = static_cast<PortIndex>(upto(2));
      if (upto(4) == 0) {
        give(from, at, arp_of(host(at, true, 2 + upto(20)), kHost + upto(3), at), now, out);
      } else if (upto(8) == 0) {
        from.tick(now, out);
      } else {
        const bool is_ip4 = upto(3) != 0;
        const Bytes sent = packet(host(at, is_ip4, 2), host(1U - at, is_ip4, 2 + upto(30)), at);
        give(from, at, sent, now, out);
      }
    }
  }

  wire::testing::Random random{GetParam()};
  Instant now = Instant{} + seconds(1000);
  Router from{router_config(), 1}, to{router_config(), 2};
};

TEST_P(NeighbourState, IsFollowedWhileItGoesOn) {
  run(300);
  from.begin_state();
  for (int round = 0; round < 30; ++round) {
    const Bytes some = from.take_state(upto(4) * 200, now);
    if (!some.empty()) load(to, {some}, now);
    run(static_cast<int>(upto(60)));
  }
  load(to, rest_of(from, now), now);
  EXPECT_EQ(neighbours_of(to), neighbours_of(from));
  Router third(router_config(), 3);
  load(third, all_of(to, now, 300), now + seconds(50));
  EXPECT_EQ(neighbours_of(third), neighbours_of(from));
}

INSTANTIATE_TEST_SUITE_P(Seeds, NeighbourState, testing::Range(0u, 10u));

TEST(NeighboursState, FramesThatWaitAreSentThereInOrder) {
  Router from(router_config(), 1), to(router_config(), 2);
  Instant now = Instant{} + seconds(1000);
  Received out;
  from.begin_state();
  const Ip whom = host(1, true, 9);
  std::vector<std::uint8_t> hops;
  const auto send = [&](std::uint8_t time_to_live) {
    Bytes made;
    write_udp({.source_mac = kHost,
               .destination_mac = kMac,
               .source = host(0, true, 2),
               .destination = whom,
               .hops = time_to_live},
              4000, 53, Bytes(1000, std::byte{0x5a}), made);
    give(from, 0, made, now, out);
  };
  send(10), send(20), send(30);
  const auto first = rest_of(from, now, 1500);
  EXPECT_THAT(first, SizeIs(2)) << "not more at once than was asked for";
  load(to, first, now);
  send(40);
  load(to, rest_of(from, now), now);
  EXPECT_THAT(rest_of(from, now), IsEmpty());
  out.frames.clear();
  to.tick(now, out);
  const auto is_question = [&](const Bytes& frame) {
    const auto arp = read_arp(frame);
    return arp && arp->is_request && arp->target == whom;
  };
  EXPECT_EQ(std::ranges::count_if(out.frames[1], is_question), 1) << "asked again, at once";
  out.frames.clear();
  give(to, 1, arp_of(whom, kHost + 9, 1), now, out);
  for (const Bytes& each : out.frames[1]) {
    if (const auto sent = read_ip_frame(each)) hops.push_back(sent->hops);
  }
  EXPECT_THAT(hops, ElementsAre(9, 19, 29, 39));
}

TEST(NeighboursState, FramesThatWereSentMeanwhileAreNotSentTwice) {
  Router from(router_config(), 1), to(router_config(), 2);
  const Instant now = Instant{} + seconds(1000);
  Received out;
  from.begin_state();
  give(from, 0, packet(host(0, true, 2), host(1, true, 9), 0), now, out);
  load(to, rest_of(from, now), now);
  give(from, 1, arp_of(host(1, true, 9), kHost + 9, 1), now, out);
  load(to, rest_of(from, now), now);
  out.frames.clear();
  give(to, 1, arp_of(host(1, true, 9), kHost + 9, 1), now, out);
  EXPECT_THAT(out.frames[1], SizeIs(1)) << "an answer to the question";
}

TEST(NeighboursState, TwoToTheByte) {
  Router from(router_config(), 1);
  const Instant now = Instant{} + seconds(1000);
  Received out;
  give(from, 0, arp_of(host(0, true, 9), kHost, 0), now, out);
  EXPECT_THAT(
      all_of(from, now + seconds(1)),
      ElementsAre(from_hex(hex("01 0009 0100 00000011 0000 03 0a070009 00007148 0200000000a0"))));
  give(from, 0, packet(host(0, false, 2), host(1, false, 9), 0), now, out);
  const auto all = all_of(from, now);
  ASSERT_THAT(all, SizeIs(1));
  EXPECT_THAT(to_hex(all[0]),
              HasSubstr(hex("0001 0c fd080000000000000000000000000009 000003e8 00000068")));
}

TEST(NeighboursState, WhatCannotBeIsRefused) {
  Router to(router_config(), 2);
  const auto loads = [&](std::string_view text) {
    return to.load_state(from_hex(hex(text)), Instant{}).has_value();
  };
  EXPECT_TRUE(loads("01 0009 0100 00000011 0000 03 0a070009 00007148 0200000000a0"));
  EXPECT_FALSE(loads("01 0009 0100 00000011 0000 03 0a070009 00007148 0300000000a0"));
  EXPECT_FALSE(loads("01 0009 0100 00000011 0000 13 0a070009 00007148 0200000000a0"));
  EXPECT_FALSE(loads("01 0009 0100 00000010 0000 09 0a070008 00007148 00000001 00"))
      << "no frame is so short";
  EXPECT_EQ(to.neighbours().entries().size(), 1u);
  EXPECT_TRUE(loads("01 0009 0100 00000011 0007 03 0a070009 00007148 0200000000a0"));
  EXPECT_TRUE(loads("01 0009 0100 00000011 0000 03 0a070001 00007148 0200000000a0"));
  EXPECT_EQ(to.neighbours().entries().size(), 1u) << "no such port; its own address";
}

// ---- leases ----

DhcpConfig dhcp_config() {
  DhcpConfig made{.port = 0, .address = prefix("10.7.0.2/24"), .mac = kServer};
  made.networks = {{.prefix = prefix("10.7.0.0/24"),
                    .first = ip("10.7.0.100"),
                    .last = ip("10.7.0.109"),
                    .lease_s = 60}};
  made.reservations = {{.mac = kOther, .address = ip("10.7.0.50")}};
  return made;
}

std::vector<std::string> leases_of(const DhcpServer& server, Instant now) {
  std::vector<std::string> all;
  for (const DhcpLease& each : server.leases()) {
    all.push_back(fmt::format(
        "{} {} {} {} {} {}", each.address.text(), static_cast<int>(each.state), to_text(each.mac),
        to_hex(each.identifier), each.host, std::max(each.ends - now, Nanoseconds(0)).count()));
  }
  return all;
}

struct LeaseState : testing::TestWithParam<unsigned> {
  std::size_t upto(std::size_t most) { return random() % most; }
  Bytes some_request() {
    constexpr DhcpType kTypes[] = {DhcpType::discover, DhcpType::discover, DhcpType::request,
                                   DhcpType::request,  DhcpType::request,  DhcpType::decline,
                                   DhcpType::release};
    const std::string address = fmt::format("10.7.0.{}", 98 + upto(14));
    const Mac mac = upto(8) == 0 ? kOther : kClient + 16 * upto(14);
    const DhcpType type = kTypes[upto(7)];
    return request_of({.type = type,
                       .mac = mac,
                       .client = type == DhcpType::release ? address.c_str() : "0.0.0.0",
                       .requested = type == DhcpType::release ? nullptr : address.c_str()});
  }
  void run(int steps) {
    for (int i = 0; i < steps; ++i) {
      Received out;
      now += milliseconds(upto(2000));
      if (upto(15) == 0) from.tick(now, out);
      give(from, 0, some_request(), now, out);
    }
  }

  wire::testing::Random random{GetParam()};
  Instant now = Instant{} + seconds(1000);
  DhcpServer from{dhcp_config()}, to{dhcp_config()};
};

TEST_P(LeaseState, IsFollowedWhileItGoesOn) {
  run(100);
  from.begin_state();
  for (int round = 0; round < 30; ++round) {
    const Bytes some = from.take_state(upto(4) * 60, now);
    if (!some.empty()) load(to, {some}, now);
    run(static_cast<int>(upto(20)));
  }
  load(to, rest_of(from, now), now);
  EXPECT_EQ(leases_of(to, now), leases_of(from, now));
  EXPECT_FALSE(leases_of(to, now).empty());
  EXPECT_GT(to.changes(), 0u) << "so that they are kept there";
  DhcpServer third(dhcp_config());
  load(third, all_of(to, now, 100), now - seconds(500));
  EXPECT_EQ(leases_of(third, now - seconds(500)), leases_of(from, now));
  for (int i = 0; i < 100; ++i) {
    Received here, there;
    const Bytes request = some_request();
    give(from, 0, request, now, here);
    give(to, 0, request, now, there);
    ASSERT_EQ(here.frames, there.frames);
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, LeaseState, testing::Range(0u, 10u));

TEST(LeasesState, OneToTheByte) {
  DhcpServer from(dhcp_config());
  const Instant now = Instant{} + seconds(1000);
  Received out;
  give(from, 0, request_of({.requested = "10.7.0.101"}), now, out);
  EXPECT_THAT(all_of(from, now),
              ElementsAre(from_hex(hex("01 000b 0100 00000020 00 0a070065 0200000000c1 "
                                       "0000000df8475800 07 010200000000c1 04 77656231"))));
}

TEST(LeasesState, WhatHasNoPlaceThereIsPassedOver) {
  DhcpServer to(dhcp_config());
  const auto loads = [&](std::string_view text) {
    return to.load_state(from_hex(hex(text)), Instant{}).has_value();
  };
  EXPECT_TRUE(loads("01 000b 0100 00000015 01 0a070010 0200000000c1 0000000df8475800 00 00"));
  EXPECT_TRUE(loads("01 000b 0100 00000015 01 0a070032 0200000000c1 0000000df8475800 00 00"))
      << "another's reservation";
  EXPECT_THAT(to.leases(), IsEmpty());
  EXPECT_FALSE(loads("01 000b 0100 00000015 03 0a070065 0200000000c1 0000000df8475800 00 00"));
  EXPECT_FALSE(loads("01 000b 0100 00000015 01 0a070065 0200000000c1 f000000df8475800 00 00"));
  EXPECT_THAT(to.leases(), IsEmpty());
}

}  // namespace
}  // namespace godwit::net
