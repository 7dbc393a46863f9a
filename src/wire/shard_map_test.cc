#include "wire/shard_map.hh"

#include <gtest/gtest.h>

#include "wire/control.hh"
#include "wire/engine_testing.hh"

namespace godwit::wire {
namespace {

using testing::port_id;
using testing::wire_id;

using Shards = std::set<std::uint16_t>;

TEST(ShardMap, APortStaysWhereItWasPutFirst) {
  ShardMap map;
  EXPECT_FALSE(map.of(port_id(1)));
  EXPECT_EQ(map.add(port_id(1), 2), 2);
  EXPECT_EQ(map.add(port_id(1), 0), 2);
  map.erase(port_id(1));
  EXPECT_FALSE(map.of(port_id(1)));
}

TEST(ShardMap, TheEndsOfAWireComeTogether) {
  ShardMap map;
  map.add(port_id(1), 0);
  EXPECT_FALSE(map.join(port_id(1), port_id(2))) << "the other end is not here";
  EXPECT_EQ(map.unit_of(port_id(1)), std::vector{port_id(1)});
  map.add(port_id(2), 3);
  const auto relocation = map.join(port_id(2), port_id(1));
  ASSERT_TRUE(relocation);
  EXPECT_EQ(relocation->ports, std::vector{port_id(2)});
  EXPECT_EQ(relocation->from, 3);
  EXPECT_EQ(relocation->to, 0);
  map.relocated(*relocation);
  EXPECT_EQ(map.of(port_id(2)), 0);
  EXPECT_FALSE(map.join(port_id(2), port_id(1))) << "they are together";
  EXPECT_EQ(map.unit_of(port_id(1)), (std::vector{port_id(1), port_id(2)}));
  // Wired to another one since.
  map.add(port_id(3), 0);
  map.join(port_id(2), port_id(3));
  EXPECT_EQ(map.unit_of(port_id(1)), std::vector{port_id(1)});
}

TEST(ShardMap, ControlMessagesGoWhereTheirPortsAre) {
  ShardMap map;
  map.add(port_id(1), 1);
  map.add(port_id(4), 3);
  const auto want = [](std::uint8_t a, std::uint8_t b) {
    return encode(Want{.channel = ChannelId::direct(wire_id(1), {port_id(a), 1}, {port_id(b), 1})});
  };
  EXPECT_EQ(map.takers(want(1, 2)), Shards{1});
  EXPECT_EQ(map.takers(want(2, 1)), Shards{1});
  EXPECT_EQ(map.takers(want(1, 4)), (Shards{1, 3}));
  EXPECT_EQ(map.takers(want(2, 3)), Shards{0});
  EXPECT_EQ(map.takers(encode(Endpoints{})), Shards{0});
  EXPECT_EQ(map.takers(as_bytes("garbage")), Shards{0});
}

TEST(ShardMap, WhatNoShardHasIsForgottenUnlessItIsNewer) {
  ShardMap map;
  map.add(port_id(1), 0);
  map.add(port_id(2), 0);
  const auto asked = map.additions();
  map.add(port_id(3), 0);
  map.prune({port_id(2)}, asked);
  EXPECT_EQ(map.ports(), (std::vector{port_id(2), port_id(3)}));
}

TEST(Shard, ReceiverIndicesHaveRoomForAll) {
  EXPECT_EQ(shard_mask(1), 0);
  EXPECT_EQ(shard_mask(2), 1);
  EXPECT_EQ(shard_mask(3), 3);
  EXPECT_EQ(shard_mask(16), 15);
  EXPECT_EQ(shard_of_generation(first_generation(kMostShards - 1)), kMostShards - 1U);
}

}  // namespace
}  // namespace godwit::wire
