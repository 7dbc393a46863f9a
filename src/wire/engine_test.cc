#include "wire/engine.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "wire/engine_testing.hh"

namespace godwit::wire::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

const PortId kX = port_id(1), kY = port_id(2);
const WireId kWire = wire_id(9);

// X at `x_host`, Y at `y_host`, joined.
void join(TestNet& net, const std::string& x_host, const std::string& y_host) {
  net[x_host].engine.add_port({kX, 1, "default"}, net.now());
  net[y_host].engine.add_port({kY, 1, "default"}, net.now());
  EXPECT_TRUE(net[x_host].engine.connect({kWire, kX, kY, 1, y_host}, net.now()));
  EXPECT_TRUE(net[y_host].engine.connect({kWire, kY, kX, 1, x_host}, net.now()));
  net.settle();
}

TEST(Engine, CarriesFramesBothWaysBetweenHosts) {
  TestNet net({"a", "b"});
  net.session("a", "b", true);
  join(net, "a", "b");
  send(net["a"], kX, 1, net.now());
  send(net["a"], kX, 2, net.now());
  send(net["b"], kY, 7, net.now());
  net.settle();
  EXPECT_THAT(numbers(net["b"].delivered[kY]), ElementsAre(1, 2));
  EXPECT_THAT(numbers(net["a"].delivered[kX]), ElementsAre(7));
  const auto stats = net["a"].engine.wire_stats();
  ASSERT_EQ(stats.size(), 1U);
  EXPECT_EQ(stats[0].state, "up");
  EXPECT_EQ(stats[0].tx_frames, 2U);
  EXPECT_EQ(stats[0].rx_frames, 1U);
  EXPECT_EQ(stats[0].tx_bytes, 2U * 90);
  EXPECT_TRUE(stats[0].drops.empty());
}

TEST(Engine, JoinsPortsOfOneHostWithoutDatagrams) {
  TestNet net({"a"});
  join(net, "a", "a");
  send(net["a"], kX, 1, net.now());
  net.pass(seconds(60));
  EXPECT_THAT(numbers(net["a"].delivered[kY]), ElementsAre(1));
  EXPECT_EQ(net["a"].datagrams_sent, 0U);
  EXPECT_EQ(net["a"].engine.wire_stats()[0].state, "local");
}

TEST(Engine, KeepsTheFirstFramesUntilThereIsAKey) {
  TestNet net({"a", "b"});
  join(net, "a", "b");
  EXPECT_EQ(net["a"].count(EventKind::session_needed), 1U);
  send(net["a"], kX, 1, net.now());
  net.pass(seconds(1));
  net.session("a", "b", true);
  EXPECT_THAT(numbers(net["b"].delivered[kY]), ElementsAre(1));
}

TEST(Engine, GivesUpFramesForWhichNoKeyComes) {
  TestNet net({"a", "b"});
  join(net, "a", "b");
  net.pass(seconds(70));  // nothing else is waited for any more
  send(net["a"], kX, 1, net.now());
  net.pass(seconds(6));
  EXPECT_EQ(net["a"].engine.wire_stats()[0].drops.at("unkeyed"), 1U);
}

// From a to b, once they are joined.
void send_a_frame_of_which_some_is_lost(TestNet& net) {
  net.session("a", "b", true);
  join(net, "a", "b");
  net.pass(seconds(1));
  net.most_of_run = 1;
  const Bytes frame = numbered_frame(1, 30'000);
  const BytesView view = frame;
  net["a"].engine.frames_from_port(kX, {&view, 1}, net.now());
  net.pass(milliseconds(200));
}

TEST(Engine, GivesUpAFrameOfWhichSomeIsMissing) {
  TestNet net({"a", "b"});
  send_a_frame_of_which_some_is_lost(net);
  EXPECT_EQ(net["b"].engine.wire_stats()[0].drops.at("incomplete"), 1U);
}

TEST(Engine, WhatWasDroppedStaysCountedWhenItsKeyAndItsChannelAreGone) {
  TestNet net({"a", "b"});
  send_a_frame_of_which_some_is_lost(net);
  const auto incomplete = [&] { return net["b"].engine.wire_stats()[0].drops.at("incomplete"); };
  const std::uint32_t generation = net["a"].engine.wire_stats()[0].generation;
  net.pass(seconds(200));
  EXPECT_GT(net["a"].engine.wire_stats()[0].generation, generation + 1);
  EXPECT_EQ(incomplete(), 1U);
  for (const char* host : {"a", "b"}) net[host].engine.disconnect(kWire, net.now());
  net.pass(seconds(1));
  join(net, "a", "b");
  EXPECT_EQ(incomplete(), 1U);
}

TEST(Engine, CountsFramesThatNoWireCarries) {
  Limits limits;
  limits.channels_per_port = 0;
  TestNet net({"a", "b"}, limits);
  join(net, "a", "b");
  for (const std::size_t size : {std::size_t{100}, kMinFrameBytes - 1}) {
    const Bytes frame(size);
    const BytesView view = frame;
    net["a"].engine.frames_from_port(kX, {&view, 1}, net.now());
  }
  EXPECT_THAT(net["a"].engine.wire_stats()[0].drops,
              ElementsAre(Pair("bad_size", 1U), Pair("no_channel", 1U)));
}

TEST(Engine, CountsFramesThatAreTooLarge) {
  TestNet net({"a", "b"});
  net.session("a", "b", true);
  join(net, "a", "b");
  const Bytes frame(kMaxFrameBytes + 1);
  const BytesView view = frame;
  net["a"].engine.frames_from_port(kX, {&view, 1}, net.now());
  EXPECT_THAT(net["a"].engine.wire_stats()[0].drops, ElementsAre(Pair("bad_size", 1U)));
}

TEST(Engine, GoesOnWithWhatAnotherShardHad) {
  TestNet net({"a", "b"});
  net.session("a", "b", true);
  join(net, "a", "b");
  const auto unit = net["a"].engine.take({&kX, 1}, net.now());
  net["a"].engine.adopt(*unit, net.now());
  net.pass(seconds(1));
  send(net["a"], kX, 1, net.now());
  net.settle();
  EXPECT_THAT(numbers(net["b"].delivered[kY]), ElementsAre(1));
}

// The host's clock jumped ahead, and what changes the shard comes before the tick that is late now.
TEST(Engine, WhatIsLateInOneShardIsTickedAtOnceInTheOther) {
  TestNet net({"a", "b"});
  net.session("a", "b", true);
  join(net, "a", "b");
  net.pass(seconds(1));
  Engine& engine = net["a"].engine;
  const Instant late = net.now() + seconds(30);
  const auto unit = engine.take({&kX, 1}, late);
  engine.adopt(*unit, late);
  EXPECT_EQ(engine.overlooked(), "");
  EXPECT_LE(engine.next_tick(), late);
}

TEST(Engine, RenewsKeysInTimeWithoutLoss) {
  TestNet net({"a", "b"});
  net.session("a", "b", true);
  join(net, "a", "b");
  const std::uint32_t before = net["a"].engine.wire_stats()[0].generation;
  for (std::uint64_t i = 1; i <= 300; ++i) {
    net.pass(seconds(1));
    send(net["a"], kX, i, net.now());
  }
  net.settle();
  EXPECT_EQ(net["b"].delivered[kY].size(), 300U);
  EXPECT_GE(net["a"].engine.wire_stats()[0].generation, before + 4);
  EXPECT_EQ(net["a"].count(EventKind::wire_stopped), 0U);
}

TEST(Engine, RenewsKeysByCount) {
  Limits limits;
  limits.rekey_datagrams = 100;
  TestNet net({"a", "b"}, limits);
  net.session("a", "b", true);
  join(net, "a", "b");
  for (std::uint64_t i = 1; i <= 1000; ++i) {
    send(net["a"], kX, i, net.now());
    net.pass(milliseconds(2));
  }
  EXPECT_EQ(net["b"].delivered[kY].size(), 1000U);
  EXPECT_GE(net["a"].engine.wire_stats()[0].generation, 5U);
}

TEST(Engine, GoesOnWithoutASessionUntilTheKeysAreTooOldAndThenStopsLoudly) {
  TestNet net({"a", "b"});
  net.session("a", "b", true);
  join(net, "a", "b");
  net.session("a", "b", false);
  net.pass(seconds(119));
  send(net["a"], kX, 1, net.now());
  net.settle();
  EXPECT_THAT(numbers(net["b"].delivered[kY]), ElementsAre(1));
  net.pass(seconds(2));
  send(net["a"], kX, 2, net.now());
  net.settle();
  EXPECT_THAT(numbers(net["b"].delivered[kY]), ElementsAre(1));
  EXPECT_EQ(net["a"].count(EventKind::wire_stopped), 1U);
  EXPECT_EQ(net["a"].engine.wire_stats()[0].state, "stopped");
  EXPECT_EQ(net["a"].engine.wire_stats()[0].drops.at("expired"), 1U);
  net.session("a", "b", true);
  send(net["a"], kX, 3, net.now());
  net.settle();
  EXPECT_THAT(numbers(net["b"].delivered[kY]), ElementsAre(1, 3));
  EXPECT_EQ(net["a"].count(EventKind::wire_resumed), 1U);
}

TEST(Engine, SaysThatAWireStoppedWhenItsKeyIsTooOldThoughNobodySends) {
  TestNet net({"a", "b"});
  net.session("a", "b", true);
  join(net, "a", "b");
  net.session("a", "b", false);
  net.pass(seconds(119));
  EXPECT_EQ(net["a"].count(EventKind::wire_stopped), 0U);
  net.pass(seconds(1));
  EXPECT_EQ(net["a"].count(EventKind::wire_stopped), 1U);
}

TEST(Engine, DoubledControlMessagesChangeNothing) {
  TestNet net({"a", "b"});
  net.doubles = true;
  net.session("a", "b", true);
  join(net, "a", "b");
  for (std::uint64_t i = 1; i <= 5; ++i) send(net["a"], kX, i, net.now());
  net.settle();
  EXPECT_THAT(numbers(net["b"].delivered[kY]), ElementsAre(1, 2, 3, 4, 5));
  EXPECT_EQ(net["a"].engine.wire_stats()[0].generation, 1U);
}

TEST(Engine, RefusesChannelsOfHostsThatDoNotHaveThePeer) {
  TestNet net({"a", "b", "c"});
  net.session("a", "b", true);
  net.session("a", "c", true);
  join(net, "a", "b");
  // c says that it has Y, and asks for keys.
  net["c"].engine.add_port({kY, 1, "default"}, net.now());
  net["c"].engine.connect({kWire, kY, kX, 1, "a"}, net.now());
  send(net["c"], kY, 66, net.now());
  net.pass(seconds(3));
  EXPECT_TRUE(net["a"].delivered[kX].empty());
  EXPECT_GE(net["c"].count(EventKind::peer_unknown), 1U);
}

// X was at b and Y at a when they changed places, and both agents restarted with the records from
// before: no channel is open, and nobody would ever learn better.
TEST(Engine, PortsThatEachBelieveTheOtherBesideThemAreToldToLookItUp) {
  TestNet net({"a", "b"});
  net.session("a", "b", true);
  net["a"].engine.add_port({kX, 3, "default"}, net.now());
  net["b"].engine.add_port({kY, 3, "default"}, net.now());
  EXPECT_TRUE(net["a"].engine.connect({kWire, kX, kY, 2, "a"}, net.now()));
  EXPECT_TRUE(net["b"].engine.connect({kWire, kY, kX, 2, "b"}, net.now()));
  net.pass(seconds(1));
  EXPECT_EQ(net["a"].count(EventKind::peer_unknown), 0U);
  net.pass(seconds(4));
  EXPECT_EQ(net["a"].count(EventKind::peer_unknown), 2U);
  EXPECT_EQ(net["b"].count(EventKind::peer_unknown), 2U);
  // That one end is told is enough: it tells the other.
  EXPECT_TRUE(net["a"].engine.connect({kWire, kX, kY, 3, "b"}, net.now()));
  net.pass(seconds(1));
  send(net["a"], kX, 1, net.now());
  send(net["b"], kY, 2, net.now());
  net.pass(seconds(10));
  EXPECT_THAT(numbers(net["b"].delivered[kY]), ElementsAre(1));
  EXPECT_THAT(numbers(net["a"].delivered[kX]), ElementsAre(2));
  EXPECT_EQ(net["a"].count(EventKind::peer_unknown), 2U);
  EXPECT_EQ(net["b"].count(EventKind::peer_unknown), 2U);
}

TEST(Engine, APeerThatLeavesThisHostWithoutAWordIsMissed) {
  TestNet net({"a"});
  join(net, "a", "a");
  net.pass(seconds(10));
  EXPECT_EQ(net["a"].count(EventKind::peer_unknown), 0U);
  net["a"].engine.drop_live({kY, 1}, net.now());
  net.pass(seconds(3));
  EXPECT_EQ(net["a"].count(EventKind::peer_unknown), 1U);
  EXPECT_EQ(net["a"].engine.wire_stats()[0].state, "connecting");
  net["a"].engine.add_port({kY, 1, "default"}, net.now());
  EXPECT_TRUE(net["a"].engine.connect({kWire, kY, kX, 1, "a"}, net.now()));
  net.pass(seconds(10));
  EXPECT_EQ(net["a"].count(EventKind::peer_unknown), 1U);
}

// Y's agent was told of another wire, X's not yet that theirs is no more.
TEST(Engine, APeerWithAnotherWireIsMissedAndHearsNothing) {
  TestNet net({"a"});
  join(net, "a", "a");
  net.pass(milliseconds(1));
  net["a"].engine.add_port({port_id(3), 1, "default"}, net.now());
  net["a"].engine.connect({wire_id(8), kY, port_id(3), 1, "a"}, net.now());
  net["a"].engine.connect({wire_id(8), port_id(3), kY, 1, "a"}, net.now());
  send(net["a"], kX, 1, net.now());
  net.pass(seconds(3));
  EXPECT_TRUE(net["a"].delivered[kY].empty());
  EXPECT_EQ(net["a"].count(EventKind::peer_unknown), 1U);
}

TEST(Engine, APeerThatIsSaidToHaveComeHereIsMissed) {
  TestNet net({"a", "b"});
  net.session("a", "b", true);
  join(net, "a", "b");
  net.pass(milliseconds(1));
  const ChannelId channel = ChannelId::direct(kWire, {kX, 1}, {kY, 1});
  net["a"].engine.control("b", encode(Notify{channel, 1, Move{{kY, 2}, "a", 0}}), net.now());
  net.pass(seconds(3));
  EXPECT_EQ(net["a"].count(EventKind::peer_unknown), 1U);
}

TEST(Engine, SurvivesGarbage) {
  TestNet net({"a", "b"});
  net.session("a", "b", true);
  join(net, "a", "b");
  std::uint64_t state = 1;
  for (int i = 0; i < 2000; ++i) {
    Bytes garbage((state >> 33) % 200 + 1);
    for (std::byte& byte : garbage) {
      state = state * 6364136223846793005ULL + 1442695040888963407ULL;
      byte = static_cast<std::byte>(state >> 56);
    }
    net["a"].engine.control("b", garbage, net.now());
    net["a"].engine.datagrams(net["b"].address, garbage, 1400, net.now());
  }
  EXPECT_EQ(net["a"].engine.bad_control(), 2000U);
  EXPECT_EQ(net["a"].engine.stray_datagrams(), 2000U);
  send(net["b"], kY, 1, net.now());
  net.settle();
  EXPECT_THAT(numbers(net["a"].delivered[kX]), ElementsAre(1));
}

TEST(Engine, ConnectAndDisconnectMayBeRepeated) {
  TestNet net({"a", "b"});
  net.session("a", "b", true);
  join(net, "a", "b");
  join(net, "a", "b");
  send(net["a"], kX, 1, net.now());
  net.settle();
  EXPECT_THAT(numbers(net["b"].delivered[kY]), ElementsAre(1));
  for (int i = 0; i < 2; ++i) {
    net["a"].engine.disconnect(kWire, net.now());
    net["b"].engine.disconnect(kWire, net.now());
  }
  send(net["a"], kX, 2, net.now());
  net.pass(seconds(1));
  EXPECT_THAT(numbers(net["b"].delivered[kY]), ElementsAre(1));
  EXPECT_TRUE(net["a"].engine.wire_stats().empty());
  join(net, "a", "b");  // within the same session: new generations
  send(net["a"], kX, 3, net.now());
  net.settle();
  EXPECT_THAT(numbers(net["b"].delivered[kY]), ElementsAre(1, 3));
  net["a"].engine.disconnect(kWire, net.now());  // and at once
  net["b"].engine.disconnect(kWire, net.now());
  join(net, "a", "b");
  net.pass(seconds(1));
  send(net["a"], kX, 4, net.now());
  net.settle();
  EXPECT_THAT(numbers(net["b"].delivered[kY]), ElementsAre(1, 3, 4));
}

// 100 idle wires: what keeps a NAT's mapping open, and nothing more.
TEST(Engine, IsQuietWhenIdle) {
  TestNet net({"a", "b"});
  net.session("a", "b", true);
  for (std::uint8_t i = 0; i < 100; ++i) {
    const PortId x = port_id(i), y = port_id(static_cast<std::uint8_t>(100 + i));
    net["a"].engine.add_port({x, 1, "default"}, net.now());
    net["b"].engine.add_port({y, 1, "default"}, net.now());
    net["a"].engine.connect({wire_id(i), x, y, 1, "b"}, net.now());
    net["b"].engine.connect({wire_id(i), y, x, 1, "a"}, net.now());
    net.pass(milliseconds(1));
  }
  net.pass(seconds(5));
  net.ticks = 0;
  const std::uint64_t ticked = net["a"].engine.ticked();
  const std::uint64_t before = net["a"].datagrams_sent;
  net.pass(seconds(60));
  // Per wire and host in a minute: 4 or 5 pings, as many pongs, one new key with its ping.
  EXPECT_LE(net["a"].datagrams_sent - before, 100U * 12);
  EXPECT_GE(net["a"].datagrams_sent - before, 100U * 4);
  EXPECT_LE(net.ticks, 2U * 100 * 12);
  // None of the others is looked at: besides, the end of a key of before, and the path's probes.
  EXPECT_LE(net["a"].engine.ticked() - ticked, 100U * 7 + 60);
}

}  // namespace
}  // namespace godwit::wire::testing
