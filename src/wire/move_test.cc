// The steps of a move one by one, on a perfect network; test/sim does the rest.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "wire/engine.hh"
#include "wire/engine_testing.hh"
#include "wire/held_buffer.hh"
#include "wire/opener.hh"

namespace godwit::wire::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const PortId kX = port_id(1), kY = port_id(2);
const WireId kWire = wire_id(9);

// X at a, moving to b; Y at p.
class MoveTest : public ::testing::Test {
 protected:
  MoveTest() : MoveTest(Limits{}) {}
  explicit MoveTest(Limits limits) : net({"a", "b", "p"}, limits) {
    net.session("a", "b", true);
    net.session("a", "p", true);
    net.session("b", "p", true);
    net["a"].engine.add_port({kX, 1, "default"}, net.now());
    net["p"].engine.add_port({kY, 1, "default"}, net.now());
    net["a"].engine.connect({kWire, kX, kY, 1, "p"}, net.now());
    net["p"].engine.connect({kWire, kY, kX, 1, "a"}, net.now());
    net.settle();
  }
  void prepare() {
    const WireConfig wire{kWire, kX, kY, 1, "p"};
    net["b"].engine.prepare({kX, 2, "default"}, "a", {&wire, 1}, net.now());
    net["a"].engine.offer_move(kX, "b", 2, net.now());
    net.pass(milliseconds(500));
  }
  void from_peer(std::uint64_t number) {
    send(net["p"], kY, number, net.now());
    net.settle();
  }
  std::vector<std::uint64_t> at(const std::string& host, const PortId& port) {
    return numbers(net[host].delivered[port]);
  }

  TestNet net;
};

TEST_F(MoveTest, IsPreparedOnceAllChannelsAnswered) {
  prepare();
  EXPECT_EQ(net["b"].count(EventKind::prepared), 1U);
  EXPECT_EQ(net["b"].engine.port_stats(kX)->state, PortState::held);
}

TEST_F(MoveTest, IsNotPreparedWithoutTheSource) {
  const WireConfig wire{kWire, kX, kY, 1, "p"};
  net["b"].engine.prepare({kX, 2, "default"}, "a", {&wire, 1}, net.now());
  net.pass(seconds(3));
  EXPECT_EQ(net["b"].count(EventKind::prepared), 0U);
}

TEST_F(MoveTest, IsPreparedWhenItsPeerComesToTheSameHost) {
  const WireConfig wire{kWire, kX, kY, 2, "b"};
  net["b"].engine.prepare({kX, 2, "default"}, "a", {&wire, 1}, net.now());
  net["a"].engine.offer_move(kX, "b", 2, net.now());
  net.pass(seconds(1));
  EXPECT_EQ(net["b"].count(EventKind::prepared), 0U);
  const WireConfig back{kWire, kY, kX, 2, "b"};
  net["b"].engine.prepare({kY, 2, "default"}, "p", {&back, 1}, net.now());
  net.pass(milliseconds(1));
  EXPECT_EQ(net["b"].count(EventKind::prepared), 1U);
}

// The end of a segment says that a frame is missing, which is not waited for any longer than frames
// overtake each other.
TEST(Marker, WhatWasOvertakenLongAgoIsNotWaitedFor) {
  Limits limits;
  limits.marker_wait = seconds(10);
  TestNet net({"a", "b", "p"}, limits);
  for (const auto& [one, two] : {std::pair{"a", "b"}, std::pair{"a", "p"}, std::pair{"b", "p"}}) {
    net.session(one, two, true);
  }
  net["a"].engine.add_port({kX, 1, "default"}, net.now());
  net["p"].engine.add_port({kY, 1, "default"}, net.now());
  net["a"].engine.connect({kWire, kX, kY, 1, "p"}, net.now());
  net["p"].engine.connect({kWire, kY, kX, 1, "a"}, net.now());
  const WireConfig wire{kWire, kX, kY, 1, "p"};
  net["b"].engine.prepare({kX, 2, "default"}, "a", {&wire, 1}, net.now());
  net["a"].engine.offer_move(kX, "b", 2, net.now());
  net.pass(milliseconds(500));
  bool loses = true;
  net.route = [&](const std::string& from, const PeerAddress& to, std::size_t) {
    return loses ? std::nullopt : std::optional(TestNet::Arrival{net.owner(to), net[from].address});
  };
  send(net["a"], kX, 1, net.now());
  loses = false;
  net["a"].engine.pause(kX, {}, net.now());
  net["b"].engine.run(kX, net.now());
  net["a"].engine.release(kX, net.now());
  net.settle();
  send(net["b"], kX, 2, net.now());
  net.settle();
  EXPECT_THAT(numbers(net["p"].delivered[kY]), IsEmpty());
  net.pass(2 * kReorderHorizon);
  EXPECT_THAT(numbers(net["p"].delivered[kY]), ElementsAre(2));
}

TEST_F(MoveTest, HoldsInThePauseAndDeliversInOrder) {
  prepare();
  from_peer(1);
  const Bytes untaken = numbered_frame(1);
  const BytesView view = untaken;
  net["a"].engine.pause(kX, {&view, 1}, net.now());
  from_peer(2);
  from_peer(3);
  EXPECT_THAT(at("a", kX), ElementsAre(1));
  EXPECT_THAT(at("b", kX), IsEmpty());
  EXPECT_EQ(net["b"].engine.port_stats(kX)->held_frames, 3U);
  net["b"].engine.run(kX, net.now());
  net["a"].engine.release(kX, net.now());
  net.settle();
  from_peer(4);
  EXPECT_THAT(at("b", kX), ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(net["b"].engine.port_stats(kX)->held_total, 3U);
  EXPECT_EQ(net["p"].count(EventKind::peer_moved), 1U);
  EXPECT_EQ(net["p"].engine.wire_stats()[0].remote_host, "b");
  send(net["b"], kX, 9, net.now());
  net.settle();
  EXPECT_THAT(at("p", kY), ElementsAre(9));
}

// The agent that paused the port died; the next one opened it again before it knew.
TEST_F(MoveTest, APortThatLeftAndIsLiveAgainAfterARestartIsDropped) {
  const PortEpoch gone{kX, net["a"].engine.port_stats(kX)->id.epoch};
  net["a"].engine.drop_live({kX, gone.epoch + 1}, net.now());
  EXPECT_TRUE(net["a"].engine.live_epoch(kX));
  net["a"].engine.drop_live(gone, net.now());
  EXPECT_FALSE(net["a"].engine.port_stats(kX));
  EXPECT_EQ(net["a"].count(EventKind::moved_away), 1U);
}

TEST_F(MoveTest, APausedPortIsNotDroppedButForwards) {
  prepare();
  net["a"].engine.pause(kX, {}, net.now());
  net["a"].engine.drop_live(net["a"].engine.port_stats(kX)->id, net.now());
  EXPECT_EQ(net["a"].engine.port_stats(kX)->state, PortState::paused);
}

TEST_F(MoveTest, TheOldHostRefusesToSendAndForgetsAfterItsLease) {
  prepare();
  net["a"].engine.pause(kX, {}, net.now());
  send(net["a"], kX, 5, net.now());
  net["b"].engine.run(kX, net.now());
  net["a"].engine.release(kX, net.now());
  send(net["a"], kX, 6, net.now());
  net.settle();
  EXPECT_THAT(at("p", kY), IsEmpty());
  EXPECT_EQ(net["a"].engine.port_stats(kX)->state, PortState::forwarding);
  net.pass(seconds(29));
  EXPECT_EQ(net["a"].count(EventKind::moved_away), 0U);
  net.pass(seconds(2));
  EXPECT_EQ(net["a"].count(EventKind::moved_away), 1U);
  EXPECT_FALSE(net["a"].engine.port_stats(kX));
}

TEST_F(MoveTest, AnAbortDeliversOurOwnCopyAndBurnsTheEpoch) {
  prepare();
  net["a"].engine.pause(kX, {}, net.now());
  from_peer(1);
  net["a"].engine.resume(kX, net.now());
  net["b"].engine.discard(kX, net.now());
  net.settle();
  from_peer(2);
  EXPECT_THAT(at("a", kX), ElementsAre(1, 2));
  EXPECT_THAT(at("b", kX), IsEmpty());
  send(net["a"], kX, 7, net.now());
  net.settle();
  EXPECT_THAT(at("p", kY), ElementsAre(7));

  const WireConfig wire{kWire, kX, kY, 1, "p"};
  net["b"].engine.prepare({kX, 3, "default"}, "a", {&wire, 1}, net.now());
  net["a"].engine.offer_move(kX, "b", 3, net.now());
  net.pass(milliseconds(500));
  net["a"].engine.pause(kX, {}, net.now());
  from_peer(3);
  net["b"].engine.run(kX, net.now());
  net.settle();
  EXPECT_THAT(at("b", kX), ElementsAre(3));
}

TEST_F(MoveTest, StepsMayBeRepeatedAndThoseThatDoNotFitDoNothing) {
  net["a"].engine.release(kX, net.now());
  net["a"].engine.pause(kX, {}, net.now());  // nothing was offered
  net["b"].engine.run(kX, net.now());
  EXPECT_EQ(net["a"].engine.port_stats(kX)->state, PortState::live);
  prepare();
  prepare();
  for (int i = 0; i < 2; ++i) net["a"].engine.pause(kX, {}, net.now());
  from_peer(1);
  for (int i = 0; i < 2; ++i) net["b"].engine.run(kX, net.now());
  for (int i = 0; i < 2; ++i) net["a"].engine.release(kX, net.now());
  net["a"].engine.resume(kX, net.now());   // too late
  net["b"].engine.discard(kX, net.now());  // too late
  net.settle();
  EXPECT_THAT(at("b", kX), ElementsAre(1));
  EXPECT_THAT(at("a", kX), IsEmpty());
  EXPECT_EQ(net["b"].engine.live_epoch(kX), 2U);
  EXPECT_EQ(net["a"].engine.live_epoch(kX), std::nullopt);
}

TEST_F(MoveTest, AWireMayBeCutWhileItsPeerIsNotReachedYet) {
  net.session("b", "p", false);
  net["p"].engine.connect({kWire, kY, kX, 2, "b"}, net.now());  // it is there, as somebody said
  net.pass(seconds(1));
  net["p"].engine.disconnect(kWire, net.now());
  net.pass(seconds(60));
  EXPECT_TRUE(net["p"].engine.wire_stats().empty());
  net["p"].engine.connect({kWire, kY, kX, 1, "a"}, net.now());
  net["a"].engine.disconnect(kWire, net.now());
  net["a"].engine.connect({kWire, kX, kY, 1, "p"}, net.now());
  net.pass(seconds(3));
  from_peer(1);
  EXPECT_THAT(at("a", kX), ElementsAre(1));
}

TEST_F(MoveTest, APortThatCameBackIsHeldBesideItsOldSelf) {
  prepare();
  net["a"].engine.pause(kX, {}, net.now());
  net["b"].engine.run(kX, net.now());
  net["a"].engine.release(kX, net.now());
  net.pass(milliseconds(100));
  const WireConfig wire{kWire, kX, kY, 1, "p"};
  net["a"].engine.prepare({kX, 3, "default"}, "b", {&wire, 1}, net.now());
  net["b"].engine.offer_move(kX, "a", 3, net.now());
  net.pass(milliseconds(500));
  EXPECT_EQ(net["a"].count(EventKind::prepared), 1U);
  net["b"].engine.pause(kX, {}, net.now());
  from_peer(1);
  net["a"].engine.run(kX, net.now());
  net["b"].engine.release(kX, net.now());
  net.settle();
  from_peer(2);
  EXPECT_THAT(at("a", kX), ElementsAre(1, 2));
  EXPECT_THAT(at("b", kX), IsEmpty());
}

TEST_F(MoveTest, ToThePeersHostAndAwayAgain) {
  const WireConfig wire{kWire, kX, kY, 1, "p"};
  net["p"].engine.prepare({kX, 2, "default"}, "a", {&wire, 1}, net.now());
  net["a"].engine.offer_move(kX, "p", 2, net.now());
  net.pass(milliseconds(500));
  EXPECT_EQ(net["p"].count(EventKind::prepared), 1U);
  net["a"].engine.pause(kX, {}, net.now());
  from_peer(1);
  net["p"].engine.run(kX, net.now());
  net["a"].engine.release(kX, net.now());
  net.settle();
  from_peer(2);
  EXPECT_THAT(at("p", kX), ElementsAre(1, 2));
  EXPECT_EQ(net["p"].engine.wire_stats()[0].state, "local");

  net["b"].engine.prepare({kX, 3, "default"}, "p", {&wire, 1}, net.now());
  net["p"].engine.offer_move(kX, "b", 3, net.now());
  net.pass(milliseconds(500));
  net["p"].engine.pause(kX, {}, net.now());
  from_peer(3);
  net["b"].engine.run(kX, net.now());
  net["p"].engine.release(kX, net.now());
  net.settle();
  from_peer(4);
  EXPECT_THAT(at("b", kX), ElementsAre(3, 4));
}

// X went from a to b and a still forwards, when X gets a wire to Z: what was sent by the one of
// before is not heard, and nothing waits for its order. (Y is at an epoch at which all that it says
// comes behind all that Z does.)
TEST(Rewired, NothingOfTheWireOfBeforeIsHeardOrWaitedFor) {
  constexpr Epoch kLate = 9;
  const PortId z = port_id(3);
  const WireId other = wire_id(8);
  TestNet net({"a", "b", "p"});
  for (const auto& [one, two] : {std::pair{"a", "b"}, std::pair{"a", "p"}, std::pair{"b", "p"}}) {
    net.session(one, two, true);
  }
  net["a"].engine.add_port({kX, 1, "default"}, net.now());
  net["p"].engine.add_port({kY, kLate, "default"}, net.now());
  net["p"].engine.add_port({z, 1, "default"}, net.now());
  const WireConfig wire{kWire, kX, kY, kLate, "p"};
  net["a"].engine.connect(wire, net.now());
  net["p"].engine.connect({kWire, kY, kX, 1, "a"}, net.now());
  net["b"].engine.prepare({kX, 2, "default"}, "a", {&wire, 1}, net.now());
  net["a"].engine.offer_move(kX, "b", 2, net.now());
  net.pass(milliseconds(500));
  net["a"].engine.pause(kX, {}, net.now());
  net["b"].engine.run(kX, net.now());
  net["a"].engine.release(kX, net.now());

  send(net["p"], kY, 1, net.now());  // to a, as Y has not heard of b yet
  net["b"].engine.disconnect(kWire, net.now());
  net.settle();
  net["b"].engine.connect({other, kX, z, 1, "p"}, net.now());
  net["p"].engine.connect({other, z, kX, 2, "b"}, net.now());
  net.pass(milliseconds(10));
  send(net["p"], kY, 3, net.now());
  send(net["p"], z, 2, net.now());
  net.pass(milliseconds(500));
  EXPECT_EQ(net["a"].engine.port_stats(kX)->forwarded, 1U);
  EXPECT_GT(net["b"].engine.stray_datagrams(), 0U);  // its channels are no more
  EXPECT_THAT(numbers(net["b"].delivered[kX]), ElementsAre(2));
  EXPECT_EQ(net["b"].engine.port_stats(kX)->waits_expired, 0U);
}

TEST_F(MoveTest, AHostThatMissedItIsToldThatItsPortIsSuperseded) {
  prepare();
  net["a"].engine.pause(kX, {}, net.now());
  net["b"].engine.run(kX, net.now());
  net["a"].engine.release(kX, net.now());
  net.pass(seconds(40));
  // An agent with an old journal.
  net["a"].engine.add_port({kX, 1, "default"}, net.now());
  net["a"].engine.connect({kWire, kX, kY, 1, "p"}, net.now());
  net.pass(seconds(1));
  EXPECT_EQ(net["a"].count(EventKind::superseded), 1U);
  from_peer(1);
  EXPECT_THAT(at("b", kX), ElementsAre(1));
}

// A guest's NIC Y and its uplink X, both at a, go to b one after the other; X is held there before
// Y goes (agent/relocation.hh).
class TogetherTest : public ::testing::Test {
 protected:
  TogetherTest() {
    net.session("a", "b", true);
    for (const PortId& port : {kX, kY}) net["a"].engine.add_port({port, 1, "default"}, net.now());
    net["a"].engine.connect(wire_of(kX), net.now());
    net["a"].engine.connect(wire_of(kY), net.now());
    for (const PortId& port : {kX, kY}) {
      net["a"].engine.offer_move(port, "b", 2, net.now());
      const WireConfig wire = wire_of(port);
      net["b"].engine.prepare({port, 2, "default"}, "a", {&wire, 1}, net.now());
    }
    net.pass(milliseconds(500));
    EXPECT_EQ(net["b"].count(EventKind::prepared), 2U);
  }
  static WireConfig wire_of(const PortId& port) {
    return {kWire, port, port == kX ? kY : kX, 1, "a"};
  }
  void leave(const PortId& port) {
    net["a"].engine.pause(port, {}, net.now());
    net.settle();
    net["b"].engine.run(port, net.now());
    net["a"].engine.release(port, net.now());
  }
  void say(const std::string& host, const PortId& port, std::uint64_t number) {
    send(net[host], port, number, net.now());
  }
  std::vector<std::uint64_t> at(const std::string& host, const PortId& port) {
    return numbers(net[host].delivered[port]);
  }

  TestNet net{{"a", "b"}};
};

TEST_F(TogetherTest, OneIsHeldWhileItsPeerComesToTheSameHost) {
  say("a", kX, 1);
  net["a"].engine.pause(kY, {}, net.now());
  say("a", kX, 2);
  net.settle();
  net["b"].engine.run(kY, net.now());
  net["a"].engine.release(kY, net.now());
  say("b", kY, 11);
  net.pass(seconds(300));  // keys are changed while it is held
  say("a", kX, 3);
  say("b", kY, 12);
  net.settle();
  const std::uint64_t sent = net["b"].datagrams_sent;
  net["a"].engine.pause(kX, {}, net.now());
  say("b", kY, 13);
  net.settle();
  net["b"].engine.run(kX, net.now());  // at once: nobody has to be asked for anything
  say("b", kX, 4);
  say("b", kY, 14);
  EXPECT_EQ(at("b", kY).back(), 4U);
  net["a"].engine.release(kX, net.now());
  net.settle();
  EXPECT_LE(net["b"].datagrams_sent, sent + 8);
  EXPECT_THAT(at("a", kY), ElementsAre(1));
  EXPECT_THAT(at("b", kY), ElementsAre(2, 3, 4));
  EXPECT_THAT(at("a", kX), ElementsAre(11, 12));
  EXPECT_THAT(at("b", kX), ElementsAre(13, 14));
  for (const WireStats& wire : net["b"].engine.wire_stats()) EXPECT_EQ(wire.state, "local");
}

TEST_F(TogetherTest, WhatIsTakenBackIsWaitedForByNobody) {
  for (const PortId& port : {kX, kY}) {
    net["b"].engine.discard(port, net.now());
    net["a"].engine.resume(port, net.now());
  }
  net.pass(seconds(60));
  EXPECT_EQ(net["a"].count(EventKind::peer_unknown), 0U);
  EXPECT_TRUE(net["b"].engine.port_stats().empty());
  say("a", kX, 1);
  say("a", kY, 11);
  EXPECT_THAT(at("a", kY), ElementsAre(1));
  EXPECT_THAT(at("a", kX), ElementsAre(11));
}

// Nobody is left who would tell the held one where its peer is.
TEST_F(TogetherTest, OneIsHeldWhileItsOldHostDies) {
  leave(kY);
  net.session("a", "b", false);
  net.route = [](auto&&...) { return std::nullopt; };
  net["b"].engine.connect({kWire, kX, kY, 2, "b"}, net.now());
  net["b"].engine.run(kX, net.now());
  net.pass(seconds(1));
  say("b", kX, 1);
  say("b", kY, 11);
  net.pass(milliseconds(100));  // for the end of what came from there
  EXPECT_THAT(at("b", kY), ElementsAre(1));
  EXPECT_THAT(at("b", kX), ElementsAre(11));
}

class SmallBuffers : public MoveTest {
 protected:
  static Limits small() {
    Limits limits;
    limits.held_bytes = 10 * (100 + HeldBuffer::kFrameOverhead);
    return limits;
  }
  SmallBuffers() : MoveTest(small()) {}
};

TEST_F(SmallBuffers, OverflowIsCountedAndToldOnce) {
  prepare();
  net["a"].engine.pause(kX, {}, net.now());
  for (std::uint64_t i = 1; i <= 30; ++i) from_peer(i);
  EXPECT_EQ(net["b"].count(EventKind::overflow), 1U);
  EXPECT_EQ(net["b"].engine.port_stats(kX)->held_dropped, 20U);
  net["b"].engine.run(kX, net.now());
  EXPECT_THAT(at("b", kX), ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9, 10));
}

}  // namespace
}  // namespace godwit::wire::testing
