// Wires between two fleets: moves within each are followed, and a host of the other one has no say
// in anything else.
#include "wire/fleets.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "wire/engine_testing.hh"

namespace godwit::wire::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const PortId kX = port_id(1), kY = port_id(2);
const WireId kWire = wire_id(9);

// X at a1, Y at b1 of fleet beta; a2 and b2 are there to move to; c1 is of a third fleet.
class Fleets : public ::testing::Test {
 protected:
  explicit Fleets(Limits limits = {}) : net({"a1", "a2", "b1", "b2", "c1"}, limits) {
    net.fleets = {{"b1", "beta"}, {"b2", "beta"}, {"c1", "gamma"}};
    for (const char* a : {"a1", "a2"}) {
      for (const char* other : {"b1", "b2", "c1"}) net.session(a, other, true);
    }
    net.session("a1", "a2", true);
    net.session("b1", "b2", true);
    net["a1"].engine.add_port({kX, 1, "red"}, net.now());
    net["b1"].engine.add_port({kY, 1, "blue"}, net.now());
    net["a1"].engine.connect({kWire, kX, kY, 1, "b1@beta"}, net.now());
    net["b1"].engine.connect({kWire, kY, kX, 1, "a1@ours"}, net.now());
    net.settle();
  }
  // The whole of a move, with frames in the pause.
  void move(const PortId& port, const PortId& peer, const std::string& from, const std::string& to,
            const std::string& peer_host) {
    const WireConfig wire{kWire, port, peer, 1, net.known_as(from, peer_host)};
    net[to].engine.prepare({port, 2, "t"}, from, {&wire, 1}, net.now());
    net[from].engine.offer_move(port, to, 2, net.now());
    net.pass(milliseconds(500));
    ASSERT_EQ(net[to].count(EventKind::prepared), 1U);
    net[from].engine.pause(port, {}, net.now());
    send(net[peer_host], peer, 100, net.now());
    net.settle();
    net[to].engine.run(port, net.now());
    net[from].engine.release(port, net.now());
    net.pass(seconds(1));
  }
  std::vector<std::uint64_t> at(const std::string& host, const PortId& port) {
    return numbers(net[host].delivered[port]);
  }
  std::string remote(const std::string& host) {
    return net[host].engine.wire_stats().at(0).remote_host;
  }
  // What a host of another fleet says over its session with a1.
  void say(const std::string& host, const ControlMessage& message) {
    net["a1"].engine.control(net.known_as("a1", host), encode(message), net.now());
    net.pass(milliseconds(10));
  }

  TestNet net;
  const ChannelId channel_ = ChannelId::direct(kWire, {kX, 1}, {kY, 1});
};

TEST_F(Fleets, FramesPassAndNamesAreQualified) {
  send(net["a1"], kX, 1, net.now());
  send(net["b1"], kY, 2, net.now());
  net.settle();
  EXPECT_THAT(at("b1", kY), ElementsAre(1));
  EXPECT_THAT(at("a1", kX), ElementsAre(2));
  EXPECT_EQ(remote("a1"), "b1@beta");
  EXPECT_EQ(remote("b1"), "a1@ours");
}

TEST_F(Fleets, AMoveWithinTheOtherFleetIsFollowed) {
  move(kY, kX, "b1", "b2", "a1");
  EXPECT_EQ(remote("a1"), "b2@beta");
  EXPECT_EQ(remote("b2"), "a1@ours");
  send(net["a1"], kX, 101, net.now());
  send(net["b2"], kY, 7, net.now());
  net.settle();
  EXPECT_THAT(at("b2", kY), ElementsAre(100, 101));
  EXPECT_THAT(at("a1", kX), ElementsAre(7));
}

TEST_F(Fleets, BothEndsMay) {
  move(kX, kY, "a1", "a2", "b1");
  move(kY, kX, "b1", "b2", "a2");
  EXPECT_EQ(remote("a2"), "b2@beta");
  EXPECT_EQ(remote("b2"), "a2@ours");
  send(net["a2"], kX, 101, net.now());
  net.settle();
  EXPECT_THAT(at("b2", kY), ElementsAre(100, 101));
}

TEST_F(Fleets, WhatAForeignHostMayNotSay) {
  const std::vector<Notice> lies = {Move{{kX, 5}, "b1", 1},         // our own port is there
                                    Move{{kX, 5}, "a2", 1},         // or with another host of ours
                                    Move{{kY, 5}, "a2@ours", 1},    // its port is with us
                                    Move{{kY, 5}, "c1@gamma", 1},   // or in a third fleet
                                    Announce{{kX, 5}, "b1"},        //
                                    Announce{{kY, 5}, "c1@gamma"},  //
                                    Handover{true, {1, 1}, {5, "a2"}, {}, {}, {}}};
  for (const Notice& lie : lies) {
    EXPECT_EQ(as_heard("b1@beta", kY, lie), std::nullopt);
    say("b1", Notify{channel_, 77, lie});
  }
  EXPECT_EQ(remote("a1"), "b1@beta");
  EXPECT_EQ(net["a1"].count(EventKind::superseded), 0U);
  EXPECT_EQ(net["a1"].count(EventKind::peer_moved), 0U);
  EXPECT_EQ(net["a1"].engine.port_stats(kX)->state, PortState::live);
  // What it says as our fleet would name it is one of its own.
  say("b1", Notify{channel_, 78, Move{{kY, 5}, "a2", 1}});
  ASSERT_EQ(net["a1"].count(EventKind::peer_moved), 1U);
  EXPECT_EQ(net["a1"].events.back().host, "a2@beta");
}

TEST_F(Fleets, AThirdFleetGetsNoHoldOfTheWire) {
  // It knows all ids, and claims the peer for itself.
  say("c1", Notify{channel_, 77, Move{{kY, 5}, "c1", 1}});
  say("c1", Notify{ChannelId::direct(kWire, {kX, 1}, {kY, 5}), 78, Move{{kY, 5}, "c1", 1}});
  say("c1", Want{ChannelId::direct(kWire, {kX, 1}, {kY, 5}), 0, 9, false});
  EXPECT_EQ(net["a1"].count(EventKind::peer_moved), 0U);
  send(net["a1"], kX, 1, net.now());
  net.settle();
  EXPECT_THAT(at("b1", kY), ElementsAre(1));
  // Nor of a wire within our fleet.
  const PortId p = port_id(3), q = port_id(4);
  const WireId own = wire_id(8);
  net["a1"].engine.add_port({p, 1, "red"}, net.now());
  net["a2"].engine.add_port({q, 1, "red"}, net.now());
  net["a1"].engine.connect({own, p, q, 1, "a2"}, net.now());
  net["a2"].engine.connect({own, q, p, 1, "a1"}, net.now());
  net.settle();
  say("c1", Notify{ChannelId::direct(own, {p, 1}, {q, 5}), 79, Move{{q, 5}, "c1", 1}});
  EXPECT_EQ(net["a1"].count(EventKind::peer_moved), 0U);
  send(net["a1"], p, 3, net.now());
  net.settle();
  EXPECT_THAT(at("a2", q), ElementsAre(3));
}

TEST_F(Fleets, NothingIsRelayedBetweenFleets) {
  // b1 reaches a2 no more by itself; a1 reaches both, and would forward among its own.
  net.route = [&](const std::string& from, const PeerAddress& to,
                  std::size_t) -> std::optional<TestNet::Arrival> {
    const std::string host = net.owner(to);
    if ((from == "a2" && host == "b1") || (from == "b1" && host == "a2")) return std::nullopt;
    return TestNet::Arrival{host, net[from].address};
  };
  net.pass(seconds(60));
  EXPECT_EQ(net["a1"].engine.relay_stats().datagrams, 0U);
  for (const auto& peer : net["a1"].engine.peer_stats()) {
    EXPECT_EQ(peer.relays, peer.host == "a2") << peer.host;
  }
}

TEST_F(Fleets, WordsForEachFleet) {
  EXPECT_EQ(as_heard("b1@beta", kY, Move{{kY, 2}, "b2", 1}), Notice(Move{{kY, 2}, "b2@beta", 1}));
  EXPECT_EQ(as_heard("b1", kY, Move{{kX, 2}, "b2@beta", 1}),
            Notice(Move{{kX, 2}, "b2@beta", 1}));  // within the fleet
  EXPECT_EQ(as_told("b1@beta", Move{{kY, 2}, "b2@beta", 1}), Notice(Move{{kY, 2}, "b2", 1}));
  EXPECT_EQ(as_told("b1@beta", Announce{{kX, 2}, "a2"}), Notice(Announce{{kX, 2}, "a2"}));
}

}  // namespace
}  // namespace godwit::wire::testing
