// Frames for a host that can be asked for keys before it is known where it receives datagrams.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "wire/engine_testing.hh"

namespace godwit::wire::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const PortId kX = port_id(1), kY = port_id(2);
const WireId kWire = wire_id(9);

// X at a, Y at b, joined; their session tells no address, as that of a host behind a NAT.
void join_unfound(TestNet& net) {
  net["a"].engine.add_port({kX, 1, "default"}, net.now());
  net["b"].engine.add_port({kY, 1, "default"}, net.now());
  EXPECT_TRUE(net["a"].engine.connect({kWire, kX, kY, 1, "b"}, net.now()));
  EXPECT_TRUE(net["b"].engine.connect({kWire, kY, kX, 1, "a"}, net.now()));
  net.sessions_tell_addresses = false;
  net.session("a", "b", true);
}

TEST(Route, FramesWaitUntilAnAddressIsKnown) {
  TestNet net({"a", "b"});
  join_unfound(net);
  EXPECT_GT(net["a"].engine.wire_stats()[0].generation, 0U) << "has no key";
  send(net["a"], kX, 1, net.now());
  send(net["a"], kX, 2, net.now());
  net.pass(seconds(1));
  EXPECT_EQ(net["a"].datagrams_sent, 0U);
  for (const char* host : {"a", "b"}) {
    net[host].engine.use_addresses({net[host].address}, net.now());
  }
  net.settle();
  net.pass(seconds(1));
  send(net["a"], kX, 3, net.now());
  net.settle();
  EXPECT_THAT(numbers(net["b"].delivered[kY]), ElementsAre(1, 2, 3));
  EXPECT_THAT(net["a"].engine.wire_stats()[0].drops, IsEmpty());
}

TEST(Route, TheNextSessionMayTellIt) {
  TestNet net({"a", "b"});
  join_unfound(net);
  send(net["a"], kX, 1, net.now());
  net.sessions_tell_addresses = true;
  net.session("a", "b", true);
  EXPECT_THAT(numbers(net["b"].delivered[kY]), ElementsAre(1));
}

TEST(Route, WhatWaitedTooLongForItIsCounted) {
  TestNet net({"a", "b"});
  join_unfound(net);
  send(net["a"], kX, 1, net.now());
  net.pass(seconds(6));
  EXPECT_EQ(net["a"].engine.wire_stats()[0].drops.at("unkeyed"), 1U);
}

TEST(Route, WhatDoesNotFitMeanwhileIsCountedAndTheRestArrives) {
  Limits limits;
  limits.unkeyed_bytes = 1000;
  TestNet net({"a", "b"}, limits);
  join_unfound(net);
  for (std::uint64_t i = 1; i <= 100; ++i) send(net["a"], kX, i, net.now());
  net.sessions_tell_addresses = true;
  net.session("a", "b", true);
  const std::size_t came = net["b"].delivered[kY].size();
  ASSERT_GT(came, 1U);
  EXPECT_EQ(numbers(net["b"].delivered[kY]).back(), came) << "the newest are those that are lost";
  EXPECT_EQ(net["a"].engine.wire_stats()[0].drops.at("unkeyed"), 100 - came);
}

// Around one of several engines of a host.
struct OfSeveral final : EngineSink, Siblings {
  std::optional<Want> want;
  std::size_t sent_bytes = 0;

  void to_port(PortId, std::span<const BytesView>) override {}
  void to_path(const PeerAddress&, const DatagramBatch& batch) override {
    sent_bytes += batch.bytes();
  }
  void relay(const PeerAddress&, BytesView, std::uint16_t) override {}
  void to_control(const std::string&, BytesView bytes) override {
    const auto message = decode_control(bytes);
    if (const auto* key = std::get_if<Want>(&message.value())) want = *key;
  }
  void event(const Event&) override {}
  void route(const std::string&, const Route&) override {}
  void frames_sent(const std::string&) override {}
  void datagrams(std::uint16_t, const PeerAddress&, BytesView, std::uint16_t) override {}
  void release_index(std::uint32_t) override {}
};

// The peer's key may come before the first shard says where the peer is.
TEST(Route, FramesWaitUntilTheFirstShardTellsIt) {
  const Instant now(seconds(100));
  std::uint64_t seed = 0;
  OfSeveral host;
  Engine engine("a", host, [&seed] { return seed += 0x9e3779b97f4a7c15ULL; }, {},
                {.index = 1, .count = 2, .tag = 7, .siblings = &host});
  engine.add_port({kX, 1, "default"}, now);
  engine.connect({kWire, kX, kY, 1, "b"}, now);
  const std::array<std::byte, 32> secret{};
  engine.session_up("b", secret, true, {}, now);
  ASSERT_TRUE(host.want);
  const Want& want = *host.want;
  engine.control("b", encode(Offer{want.channel, want.session, want.serial, 1, 99, 1}), now);
  EXPECT_GT(engine.wire_stats()[0].generation, 0U) << "has no key";
  const Bytes frame = numbered_frame(1, 1000);
  const BytesView view = frame;
  engine.frames_from_port(kX, {&view, 1}, now);
  EXPECT_EQ(host.sent_bytes, 0U);
  PeerAddress address;
  address.port = 1;
  engine.use_route("b", {.target = address, .via = {}, .state = "unproven", .mtu = 1400}, now);
  EXPECT_GT(host.sent_bytes, frame.size());
  EXPECT_EQ(engine.overlooked(), "");
}

}  // namespace
}  // namespace godwit::wire::testing
