#include "net/dhcp_server.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "net/arp.hh"
#include "net/dhcp_testing.hh"

namespace godwit::net {
namespace {

using testing::HasSubstr;

Ip ip(const char* text) { return parse_ip(text).value(); }

// What the answer says, taken apart by hand.
struct Answer {
  DhcpType type{};
  Ip yours{}, to{};
  Mac to_mac = 0;
  std::uint16_t port = 0;
  std::map<std::uint8_t, std::string> options{};  // values in hex
};

Answer answer_of(BytesView frame) {
  EXPECT_EQ(wire::testing::fault_in(frame.subspan(wire::kVnetBytes)), "");
  const auto packet = read_ip_frame(frame).value();
  Answer answer{.to = packet.destination, .to_mac = mac_at(&frame[kMacsAt])};
  answer.port = from_big_endian<std::uint16_t>(&frame[packet.l4 + 2]);
  const BytesView payload = frame.subspan(packet.l4 + 8);
  answer.yours = Ip::at4(&payload[16]);
  for (std::size_t at = 240; payload[at] != std::byte{255};) {
    const auto length = std::to_integer<std::size_t>(payload[at + 1]);
    answer.options[std::to_integer<std::uint8_t>(payload[at])] =
        to_hex(payload.subspan(at + 2, length));
    at += 2 + length;
  }
  answer.type = static_cast<DhcpType>(from_hex(answer.options.at(53))[0]);
  return answer;
}

DhcpConfig config() {
  DhcpConfig made{.port = 0, .address = parse_ip_prefix("10.7.0.2/24").value(), .mac = kServer};
  made.networks = {{.prefix = parse_ip_prefix("10.7.0.0/24").value(),
                    .first = ip("10.7.0.100"),
                    .last = ip("10.7.0.102"),
                    .lease_s = 600,
                    .options = {.length = 24,
                                .router = ip("10.7.0.1"),
                                .dns = {ip("9.9.9.9"), ip("1.1.1.1")},
                                .domain = "shop.test",
                                .mtu = 1400,
                                .routes = {{.to = parse_ip_prefix("10.8.0.0/15").value(),
                                            .via = ip("10.7.0.3")}}}},
                   {.prefix = parse_ip_prefix("10.9.0.0/16").value(),
                    .first = ip("10.9.1.0"),
                    .last = ip("10.9.1.255"),
                    .options = {.length = 16}}};
  made.reservations = {{.mac = kOther, .address = ip("10.7.0.50")}};
  return made;
}

struct DhcpTest : testing::Test {
  std::vector<Bytes> send(const Bytes& frame) {
    Received out;
    give(server, 0, frame, now, out);
    return out.frames[0];
  }
  std::optional<Answer> ask(const Wish& wish) {
    const auto frames = send(request_of(wish));
    EXPECT_LE(frames.size(), 1u);
    return frames.empty() ? std::nullopt : std::optional(answer_of(frames[0]));
  }
  Ip lease(Mac mac) {
    const auto offer = ask({.mac = mac}).value();
    EXPECT_EQ(offer.type, DhcpType::offer);
    const std::string text = offer.yours.text();
    const auto ack = ask({.type = DhcpType::request,
                          .mac = mac,
                          .requested = text.c_str(),
                          .server = "10.7.0.2"})
                         .value();
    EXPECT_EQ(ack.type, DhcpType::ack);
    EXPECT_EQ(ack.yours, offer.yours);
    return ack.yours;
  }
  void pass(Nanoseconds time) {
    Received out;
    now += time;
    server.tick(now, out);
  }

  DhcpServer server{config()};
  Instant now{};
};

TEST_F(DhcpTest, OffersAndBindsWithWhatTheNetworkTells) {
  const auto offer = ask({}).value();
  EXPECT_EQ(offer.to, offer.yours) << "to the client that cannot answer ARP yet";
  EXPECT_EQ(offer.to_mac, kClient);
  EXPECT_EQ(offer.port, 68);
  EXPECT_EQ(offer.options.at(1), "ffffff00");
  EXPECT_EQ(offer.options.at(3), "0a070001");
  EXPECT_EQ(offer.options.at(6), "0909090901010101");
  EXPECT_EQ(offer.options.at(15), to_hex(as_bytes("shop.test")));
  EXPECT_EQ(offer.options.at(26), "0578");
  EXPECT_EQ(offer.options.at(51), "00000258");
  EXPECT_EQ(offer.options.at(54), "0a070002");
  EXPECT_FALSE(offer.options.contains(121)) << "was not asked for";
  const Ip address = lease(kClient);
  EXPECT_EQ(address, offer.yours);
  EXPECT_EQ(server.leases().size(), 1u);
  EXPECT_EQ(server.leases()[0].host, "web1");
}

// RFC 3442: 10.8.0.0/15 by 10.7.0.3, and all else by the router, which is not looked at then.
TEST_F(DhcpTest, TellsClasslessRoutesToWhoAsks) {
  EXPECT_EQ(ask({.routes = true})->options.at(121), "0f0a080a070003000a070001");
}

TEST_F(DhcpTest, AClientKeepsItsAddress) {
  const Ip address = lease(kClient);
  EXPECT_EQ(lease(kClient), address);
  const std::string text = address.text();
  const auto renewed = ask({.type = DhcpType::request, .client = text.c_str()}).value();
  EXPECT_EQ(renewed.type, DhcpType::ack);
  EXPECT_EQ(renewed.to, address);
  const auto rebooted = ask({.type = DhcpType::request, .requested = text.c_str()}).value();
  EXPECT_EQ(rebooted.type, DhcpType::ack);
  pass(seconds(601));
  EXPECT_EQ(server.leases().size(), 0u);
  EXPECT_EQ(lease(kClient), address) << "nobody else wanted it";
}

TEST_F(DhcpTest, EveryClientHasAnotherUntilNoneIsLeft) {
  std::set<Ip> addresses;
  for (Mac mac = 1; mac <= 3; ++mac) addresses.insert(lease(0x020000000100 + mac));
  EXPECT_EQ(addresses, (std::set{ip("10.7.0.100"), ip("10.7.0.101"), ip("10.7.0.102")}));
  EXPECT_FALSE(ask({.mac = kClient}));
  const std::string first = addresses.begin()->text();
  for (const auto& lease : server.leases()) {
    if (lease.address != *addresses.begin()) continue;
    ask({.type = DhcpType::release, .mac = lease.mac, .client = first.c_str()});
  }
  EXPECT_EQ(lease(kClient), *addresses.begin());
}

TEST_F(DhcpTest, ReservedAddressesAreTheirs) {
  EXPECT_EQ(lease(kOther), ip("10.7.0.50"));
  const auto refused = ask({.type = DhcpType::request, .requested = "10.7.0.50"}).value();
  EXPECT_EQ(refused.type, DhcpType::nak);
  EXPECT_EQ(refused.to_mac, kBroadcast);
  EXPECT_EQ(ask({.type = DhcpType::request, .mac = kOther, .requested = "10.7.0.100"})->type,
            DhcpType::nak);
}

TEST_F(DhcpTest, WhatIsAnothersIsRefused) {
  const std::string text = lease(kClient).text();
  const Wish wish{.type = DhcpType::request, .mac = 0x020000000009, .requested = text.c_str()};
  EXPECT_EQ(ask(wish)->type, DhcpType::nak);
  for (const char* outside : {"10.7.0.99", "10.7.0.1", "10.7.0.2", "192.0.2.1"}) {
    EXPECT_EQ(ask({.type = DhcpType::request, .requested = outside})->type, DhcpType::nak);
  }
}

TEST_F(DhcpTest, ADeclinedAddressRests) {
  const Ip address = lease(kClient);
  const std::string text = address.text();
  EXPECT_FALSE(ask({.type = DhcpType::decline, .requested = text.c_str()}));
  EXPECT_NE(lease(kClient), address);
  pass(seconds(3601));
  EXPECT_EQ(server.leases().size(), 0u);
}

TEST_F(DhcpTest, TakesBackAnOfferForAnotherServer) {
  ask({});
  EXPECT_EQ(server.leases().size(), 1u);
  EXPECT_FALSE(ask({.type = DhcpType::request, .requested = "10.7.0.77", .server = "10.7.0.9"}));
  EXPECT_EQ(server.leases().size(), 0u);
}

TEST_F(DhcpTest, AnswersBehindARelay) {
  const auto offer = ask({.relay = "10.9.0.1"}).value();
  EXPECT_TRUE(parse_ip_prefix("10.9.1.0/24")->contains(offer.yours));
  EXPECT_EQ(offer.to, ip("10.9.0.1"));
  EXPECT_EQ(offer.to_mac, kRelayMac);
  EXPECT_EQ(offer.port, 67);
  EXPECT_EQ(offer.options.at(1), "ffff0000");
  EXPECT_FALSE(ask({.relay = "10.10.0.1"})) << "of no network here";
  EXPECT_EQ(server.counters()[0].drops.at("no-network"), 1u);
}

TEST_F(DhcpTest, BroadcastsToWhoWantsIt) {
  const auto offer = ask({.flags = 0x8000}).value();
  EXPECT_EQ(offer.to_mac, kBroadcast);
  EXPECT_EQ(offer.to, ip("255.255.255.255"));
  EXPECT_EQ(offer.port, 68);
}

TEST_F(DhcpTest, TellsWhoHasAnAddressAlready) {
  const auto answer = ask({.type = DhcpType::inform, .client = "10.7.0.9"}).value();
  EXPECT_EQ(answer.type, DhcpType::ack);
  EXPECT_EQ(answer.yours, ip("0.0.0.0"));
  EXPECT_FALSE(answer.options.contains(51));
  EXPECT_EQ(answer.options.at(3), "0a070001");
}

TEST_F(DhcpTest, LeasesOutliveTheServer) {
  const Ip address = lease(kClient);
  const std::uint64_t before = server.changes();
  EXPECT_GT(before, 0u);
  DhcpServer next{config()};
  next.restore(server.leases());
  std::swap(server, next);
  const std::string text = address.text();
  EXPECT_EQ(ask({.type = DhcpType::request, .mac = kOther, .requested = text.c_str()})->type,
            DhcpType::nak);
  EXPECT_EQ(ask({.type = DhcpType::request, .client = text.c_str()})->type, DhcpType::ack);
}

TEST_F(DhcpTest, ALeaseThatTheServerForgotIsTakenAtItsWord) {
  const auto renewed = ask({.type = DhcpType::request, .client = "10.7.0.101"}).value();
  EXPECT_EQ(renewed.type, DhcpType::ack);
  EXPECT_EQ(renewed.yours, ip("10.7.0.101"));
}

TEST_F(DhcpTest, AnswersArp) {
  Bytes frame;
  write_arp({.sender_mac = kClient, .sender = ip("10.7.0.100"), .target = ip("10.7.0.2")},
            kBroadcast, kClient, frame);
  const auto frames = send(frame);
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(read_arp(frames[0]), (Arp{.is_request = false,
                                      .sender_mac = kServer,
                                      .sender = ip("10.7.0.2"),
                                      .target_mac = kClient,
                                      .target = ip("10.7.0.100")}));
  EXPECT_EQ(mac_at(&frames[0][kMacsAt]), kClient);
}

TEST_F(DhcpTest, AnyCutMessageIsDamaged) {
  const Bytes whole = request_of({});
  const auto packet = read_ip_frame(whole).value();
  const BytesView payload = BytesView(whole).subspan(packet.l4 + 8);
  EXPECT_TRUE(read_dhcp(payload));
  for (std::size_t size = 0; size < 243; ++size) EXPECT_FALSE(read_dhcp(payload.first(size)));
}

TEST_F(DhcpTest, ChecksItsConfiguration) {
  const auto refusal = [](auto change) {
    DhcpConfig changed = config();
    change(changed);
    const auto good = check(changed);
    return good ? std::string() : good.error().text;
  };
  EXPECT_EQ(refusal([](DhcpConfig&) {}), "");
  EXPECT_THAT(refusal([](auto& c) { c.networks.clear(); }), HasSubstr("a network to serve"));
  EXPECT_THAT(refusal([](auto& c) { c.address.address = ip("fd00::1"); }), HasSubstr("10.7.0.2"));
  EXPECT_THAT(refusal([](auto& c) { c.networks[0].last = ip("10.7.1.1"); }), HasSubstr("no range"));
  EXPECT_THAT(refusal([](auto& c) { c.networks[0].lease_s = 5; }), HasSubstr("a minute"));
  EXPECT_THAT(refusal([](auto& c) { c.networks.push_back(c.networks[0]); }), HasSubstr("twice"));
  EXPECT_THAT(refusal([](auto& c) { c.networks[0].options.router = ip("10.6.0.1"); }),
              HasSubstr("is not in it"));
  EXPECT_THAT(refusal([](auto& c) { c.reservations[0].address = ip("192.0.2.1"); }),
              HasSubstr("in none"));
}

}  // namespace
}  // namespace godwit::net
