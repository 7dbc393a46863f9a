// Paths through a network that is not kind: NATs, black holes, cut links, hosts that move.
#include "wire/paths.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "wire/datagram.hh"
#include "wire/engine_testing.hh"
#include "wire/key.hh"

namespace godwit::wire::testing {
namespace {

using ::testing::ElementsAre;

const PortId kX = port_id(1), kY = port_id(2);
const WireId kWire = wire_id(9);

// Addresses of the outer network: 9 and the number of the NAT.
PeerAddress outer(std::uint8_t nat, std::uint16_t port) {
  PeerAddress address;
  address.address[0] = std::byte{9};
  address.address[1] = static_cast<std::byte>(nat);
  address.port = port;
  return address;
}

// Hosts "a" and "c", each behind a NAT of its own unless it is none, and "r" and "s" in the open.
enum class Nat { none, port_restricted, symmetric };

struct Net : TestNet {
  explicit Net(Nat a, Nat c, Limits limits = {}) : TestNet({"a", "c", "r", "s"}, limits) {
    nats["a"].kind = a;
    nats["c"].kind = c;
    nats["a"].number = 1;
    nats["c"].number = 2;
    route = [this](const std::string& from, const PeerAddress& to, std::size_t size) {
      return carry(from, to, size);
    };
  }

  struct Box {
    Nat kind = Nat::none;
    std::uint8_t number = 0;
    std::map<PeerAddress, std::uint16_t> out;  // target -> outer port
    std::uint16_t next_port = 1000;
  };
  std::map<std::string, Box> nats;
  std::set<std::pair<std::string, std::string>> cut;                   // of hosts, either way
  std::map<std::pair<std::string, std::string>, std::size_t> largest;  // datagram, bytes

  std::optional<Arrival> carry(const std::string& from, const PeerAddress& to, std::size_t size) {
    PeerAddress source = (*this)[from].address;
    if (Box& box = nats[from]; box.kind != Nat::none) {
      const auto known = box.out.find(to);
      const std::uint16_t port = known != box.out.end()       ? known->second
                                 : box.kind == Nat::symmetric ? box.next_port++
                                                              : std::uint16_t{4747};
      box.out[to] = port;
      source = outer(box.number, port);
    }
    const std::string target = open(source, to);
    if (target.empty() || cut.contains(std::minmax(from, target))) return std::nullopt;
    const auto limit = largest.find(std::minmax(from, target));
    if (limit != largest.end() && size > limit->second) return std::nullopt;
    return Arrival{target, source};
  }

  // Who receives what `source` sends to an address: a host in the open, or one behind a NAT that
  // has sent to exactly this source from exactly this port.
  std::string open(const PeerAddress& source, const PeerAddress& to) {
    for (const auto& [host, box] : nats) {
      if (box.kind == Nat::none) continue;
      if (to == (*this)[host].address) return {};  // a private address
      const auto hole = box.out.find(source);
      if (hole != box.out.end() && outer(box.number, hole->second) == to) return host;
    }
    return owner(to);
  }

  void join() {
    for (const auto& [self, other, port, remote] :
         {std::tuple{"a", "c", kX, kY}, std::tuple{"c", "a", kY, kX}}) {
      (*this)[self].engine.add_port({port, 1, "default"}, now());
      EXPECT_TRUE((*this)[self].engine.connect({kWire, port, remote, 1, other}, now()));
    }
    settle();
  }
  void all_sessions() {
    for (const auto& [one, other] :
         {std::pair{"a", "c"}, {"a", "r"}, {"c", "r"}, {"a", "s"}, {"c", "s"}, {"r", "s"}}) {
      session(one, other, true);
    }
  }
  WireStats wire(const std::string& host) { return (*this)[host].engine.wire_stats().at(0); }
  // Sends frames from a to c for `time`, 10 ms apart; how many arrived.
  std::size_t stream(Nanoseconds time, std::size_t frame_bytes = 100) {
    const std::size_t before = (*this)["c"].delivered[kY].size();
    for (const Instant end = now() + time; now() < end;) {
      const Bytes frame = numbered_frame(++sent, frame_bytes);
      const BytesView view = frame;
      (*this)["a"].engine.frames_from_port(kX, {&view, 1}, now());
      pass(milliseconds(10));
    }
    return (*this)["c"].delivered[kY].size() - before;
  }
  std::uint64_t sent = 0;
};

// docs/protocol/wire.md has the same bytes.
TEST(Paths, GoldenBytesOfAProbe) {
  std::array<std::byte, 32> secret{};
  secret.fill(std::byte{0x11});
  LaneKey lane{crypto::AeadAlgorithm::chacha20_poly1305, {}, 0x01020304, 0};
  lane.key = derive_key(secret, {.wire = {},
                                 .epoch = 0,
                                 .direction = Direction::from_acceptor,
                                 .lane = 0xffff,
                                 .generation = 1,
                                 .algorithm = lane.algorithm});
  EXPECT_EQ(to_hex(lane.key.bytes),
            "27f2329b2dcb65fa50278623f085bef8f19b3bfdb2db9cef4603d834cd8b55ed");
  Sealer sealer(lane, kMaxPathMtu);
  DatagramBatch batch;
  Bytes body;
  Writer(body).u64(0x0102030405060708).u8(1);
  body.resize(26);
  sealer.message(in_channel::kProbe, body, batch);
  EXPECT_EQ(to_hex(batch.runs().front().bytes),
            "12000000010203040000000000000000"
            "7c83e73e92a7597b82ae6c4e59b03dde7afdc0463bf86fd7b38dcf"
            "755eac47f61deab5e9bbe2363a235856");
}

TEST(Paths, ProveTheAddressOfASessionAndMeasureTheMtu) {
  Net net(Nat::none, Nat::none);
  net.session("a", "c", true);
  net.join();
  net.pass(seconds(2));
  EXPECT_EQ(net.wire("a").path_state, "proven");
  EXPECT_EQ(net.wire("a").path, net["c"].address);
  EXPECT_EQ(net.wire("a").path_mtu, 9000);
  EXPECT_EQ(net.wire("c").path_mtu, 9000);
  EXPECT_EQ(net["a"].count(EventKind::path_changed), 1U);
}

TEST(Paths, OpenPortRestrictedNatsFromBothSides) {
  Net net(Nat::port_restricted, Nat::port_restricted);
  net.all_sessions();
  net.join();
  net.pass(seconds(10));
  EXPECT_EQ(net.wire("a").path, outer(2, 4747));
  EXPECT_EQ(net.wire("c").path, outer(1, 4747));
  EXPECT_EQ(net.wire("a").via, "");
  EXPECT_EQ(net.stream(seconds(1)), 100U);
}

TEST(Paths, FindARelayWhereNatsAreSymmetric) {
  Net net(Nat::symmetric, Nat::symmetric);
  net.all_sessions();
  net.join();
  net.pass(seconds(3));
  EXPECT_THAT(net.wire("a").via, ::testing::AnyOf("r", "s"));
  EXPECT_EQ(net.wire("a").state, "up");
  EXPECT_EQ(net.stream(seconds(1)), 100U);
  const auto forwarded =
      net["r"].engine.relay_stats().datagrams + net["s"].engine.relay_stats().datagrams;
  EXPECT_GE(forwarded, 100U);
}

TEST(Paths, OneSideInTheOpenNeedsNoRelay) {
  for (const Nat nat : {Nat::port_restricted, Nat::symmetric}) {
    Net net(nat, Nat::none);
    net.session("a", "c", true);
    net.join();
    net.pass(seconds(2));
    EXPECT_EQ(net.wire("c").path_state, "proven");
    EXPECT_EQ(net.wire("c").via, "");
    EXPECT_EQ(net.stream(seconds(1)), 100U);
  }
}

TEST(Paths, ARelayThatDiesIsReplacedWithinTwoSeconds) {
  Net net(Nat::symmetric, Nat::symmetric);
  net.all_sessions();
  net.join();
  net.pass(seconds(3));
  const std::string relay = net.wire("a").via;
  net.stream(seconds(2));
  for (const auto* host : {"a", "c"}) net.cut.insert(std::minmax(std::string(host), relay));
  net.stream(seconds(2));
  EXPECT_NE(net.wire("a").via, relay);
  EXPECT_EQ(net.stream(seconds(1)), 100U);
}

TEST(Paths, ADeadDirectPathIsLeftForARelayAndFoundAgain) {
  Net net(Nat::none, Nat::none);
  net.all_sessions();
  net.join();
  net.stream(seconds(2));
  ASSERT_EQ(net.wire("a").via, "");
  net.cut.insert({"a", "c"});
  net.stream(seconds(2));
  EXPECT_NE(net.wire("a").via, "");
  EXPECT_EQ(net.stream(seconds(1)), 100U);
  net.cut.clear();
  net.stream(seconds(6));
  EXPECT_EQ(net.wire("a").via, "");
  EXPECT_EQ(net.wire("c").via, "");
}

TEST(Paths, WithNoOtherWayTheLossIsToldOnceAndItsEnd) {
  Net net(Nat::none, Nat::none);
  net.session("a", "c", true);
  net.join();
  net.stream(seconds(2));
  net.cut.insert({"a", "c"});
  net.stream(seconds(2));
  EXPECT_EQ(net["a"].count(EventKind::path_lost), 1U);
  EXPECT_EQ(net.wire("a").path_state, "lost");
  net.stream(seconds(10));
  EXPECT_EQ(net["a"].count(EventKind::path_lost), 1U);
  net.cut.clear();
  net.stream(milliseconds(1100));
  EXPECT_EQ(net.wire("a").path_state, "proven");
  EXPECT_EQ(net.stream(seconds(1)), 100U);
}

TEST(Paths, AnIdlePathIsKeptOpenMoreOftenThanCloudsForget) {
  Net net(Nat::none, Nat::none);
  net.session("a", "c", true);
  net.join();
  net.pass(seconds(30));
  for (int i = 0; i < 10; ++i) {
    const std::uint64_t before = net["a"].datagrams_sent;
    net.pass(seconds(20));
    EXPECT_GT(net["a"].datagrams_sent, before);
    EXPECT_LT(net["a"].datagrams_sent, before + 20);
  }
}

TEST(Paths, ABlackHoleForLargePacketsIsNoticedInTheMiddleOfAFlow) {
  Net net(Nat::none, Nat::none);
  net.largest[{"a", "c"}] = 1500 - kIpUdpBytes;
  net.session("a", "c", true);
  net.join();
  net.stream(seconds(12), 4000);
  ASSERT_EQ(net.wire("a").path_mtu, 1500);
  net.largest[{"a", "c"}] = 1400 - kIpUdpBytes;
  net.stream(seconds(2), 4000);
  EXPECT_LE(net.wire("a").path_mtu, 1400);
  EXPECT_EQ(net.stream(seconds(1), 4000), 100U);
  net.stream(seconds(10), 4000);
  EXPECT_EQ(net.wire("a").path_mtu, 1400);
  EXPECT_EQ(net["a"].count(EventKind::path_lost), 0U);
}

TEST(Paths, AHostThatChangesItsAddressIsFollowed) {
  Net net(Nat::none, Nat::none);
  net.session("a", "c", true);
  net.join();
  net.stream(seconds(2));
  net["a"].address.port = 77;
  net["a"].engine.use_addresses({net["a"].address}, net.now());
  net["a"].engine.addresses_changed(net.now());
  net.stream(seconds(2));
  EXPECT_EQ(net.wire("c").path, net["a"].address);
  send(net["c"], kY, 5, net.now());
  net.settle();
  EXPECT_THAT(numbers(net["a"].delivered[kX]), ElementsAre(5));
}

TEST(Paths, AnIdleHostThatChangesItsAddressIsFollowedToo) {
  Net net(Nat::none, Nat::none);
  net.session("a", "c", true);
  net.join();
  net.pass(seconds(60));
  net["a"].address.port = 77;
  net["a"].engine.addresses_changed(net.now());
  net.pass(seconds(18));
  EXPECT_EQ(net.wire("c").path, net["a"].address);
}

TEST(Paths, AForgedSourceGetsAProbeAndNoFrames) {
  Net net(Nat::none, Nat::none);
  net.session("a", "c", true);
  net.join();
  net.pass(seconds(5));
  // Somebody in between sends a's next probe on from an address of its own.
  const PeerAddress forged = outer(7, 7);
  bool caught = false;
  const auto honest = net.route;
  net.route = [&](const std::string& from, const PeerAddress& to,
                  std::size_t size) -> std::optional<TestNet::Arrival> {
    auto arrival = honest(from, to, size);
    if (arrival && from == "a" && !std::exchange(caught, true)) arrival->seen_from = forged;
    return arrival;
  };
  net.pass(seconds(20));
  ASSERT_TRUE(caught);
  net.stream(seconds(5));
  EXPECT_EQ(net.wire("c").path, net["a"].address);
}

TEST(Paths, ARelayForwardsForItsPeersOnly) {
  Net net(Nat::none, Nat::none);
  net.all_sessions();
  net.join();
  net.pass(seconds(2));
  net.cut.insert({"a", "c"});
  net.stream(seconds(3));
  ASSERT_EQ(net.wire("a").via.empty(), false);
  const std::string relay = net.wire("a").via;
  const RelayStats before = net[relay].engine.relay_stats();
  // c's tag, from a stranger's address.
  Bytes datagram(60);
  for (std::uint32_t tag = 0; tag < 0x10000; ++tag) {
    write_header({.receiver_index = tag << 16}, HeaderBytes(datagram.data(), kHeaderBytes));
    net[relay].engine.datagrams(outer(7, 7), datagram, 60, net.now());
  }
  net.settle();
  const RelayStats after = net[relay].engine.relay_stats();
  EXPECT_EQ(after.datagrams, before.datagrams);
  EXPECT_EQ(after.refused_source, before.refused_source + 3);  // the tags of three peers
}

TEST(Paths, ARelayKeepsToItsRate) {
  Limits limits;
  limits.relay_bytes_per_second = 20'000;
  Net net(Nat::symmetric, Nat::symmetric, limits);
  net.all_sessions();
  net.join();
  net.pass(seconds(3));
  ASSERT_FALSE(net.wire("a").via.empty());
  const std::string relay = net.wire("a").via;
  const std::uint64_t before = net[relay].engine.relay_stats().bytes;
  net.stream(seconds(10), 1000);
  const RelayStats after = net[relay].engine.relay_stats();
  EXPECT_LE(after.bytes - before, 210'000U);
  EXPECT_GT(after.refused_rate, 0U);
}

TEST(Paths, NobodyIsAskedToRelayWhoDoesNotWant) {
  Limits limits;
  limits.relays = false;
  Net net(Nat::symmetric, Nat::symmetric, limits);
  net.all_sessions();
  net.join();
  net.pass(seconds(5));
  EXPECT_EQ(net.wire("a").path_state, "unproven");
  EXPECT_EQ(net.wire("a").state, "connecting");
  EXPECT_EQ(net["r"].engine.relay_stats().datagrams, 0U);
}

// Any NATs, links cut and healed at random: when all is well again frames pass, and no relay is in
// use where none is needed.
TEST(Paths, WhateverHappenedTheBestWayIsFoundInTheEnd) {
  constexpr Nat kKinds[] = {Nat::none, Nat::port_restricted, Nat::symmetric};
  const std::vector<std::string> hosts = {"a", "c", "r", "s"};
  for (unsigned seed = 0; seed < 18; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 dice(seed);
    const Nat a = kKinds[seed % 3], c = kKinds[seed / 3 % 3];
    Net net(a, c);
    net.all_sessions();
    net.join();
    for (int step = 0; step < 6; ++step) {
      const std::string one = hosts[dice() % 4], other = hosts[dice() % 4];
      if (one != other) net.cut.insert(std::minmax(one, other));
      if (dice() % 3 == 0) net.cut.clear();
      net.stream(milliseconds(dice() % 2500));
    }
    net.cut.clear();
    net.stream(seconds(16));
    EXPECT_EQ(net.stream(seconds(1)), 100U);
    const bool needs_relay =
        (a == Nat::symmetric && c != Nat::none) || (c == Nat::symmetric && a != Nat::none);
    EXPECT_EQ(net.wire("a").via.empty(), !needs_relay);
    EXPECT_EQ(net.wire("c").via.empty(), !needs_relay);
  }
}

TEST(Paths, APeerOfThePreviousVersionIsSentToAsBefore) {
  Net net(Nat::none, Nat::none);
  net.is_previous_version = true;
  net.session("a", "c", true);
  net.join();
  EXPECT_EQ(net.stream(seconds(30), 1000), 3000U);
  EXPECT_EQ(net.wire("a").path_state, "unproven");
  EXPECT_EQ(net.wire("a").path_mtu, kMinPathMtu);
}

}  // namespace
}  // namespace godwit::wire::testing
