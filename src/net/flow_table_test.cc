#include "net/flow_table.hh"

#include <gtest/gtest.h>

#include <map>

#include "net/tracker_testing.hh"

namespace godwit::net {
namespace {

Flow flow_between(std::uint32_t source, std::uint16_t port, Instant ends) {
  Flow flow{.ends = ends};
  flow.tuples[0] = {.source = Ip::of4(source),
                    .destination = ip("198.51.100.9"),
                    .source_port = port,
                    .destination_port = 53,
                    .protocol = kUdp};
  flow.tuples[1] = flow.tuples[0].inverse();
  return flow;
}

constexpr Instant kNow = Instant{} + seconds(1);

TEST(FlowTable, FindsBothWays) {
  FlowTable table(4, 1);
  const Flow flow = flow_between(1, 2, kNow + seconds(1));
  const auto id = table.add(flow);
  ASSERT_TRUE(id);
  EXPECT_EQ(table.find(flow.tuples[0], kNow)->way, Way::original);
  EXPECT_EQ(table.find(flow.tuples[1], kNow)->way, Way::reply);
  EXPECT_EQ(*table.at(*id), flow);
  EXPECT_FALSE(table.find(flow.tuples[1], kNow + seconds(1))) << "it has ended";
  EXPECT_EQ(table.size(), 0u);
  EXPECT_EQ(table.at(*id), nullptr);
  const auto next = table.add(flow);
  EXPECT_EQ(next->index, id->index);
  EXPECT_EQ(table.at(*id), nullptr) << "another in its place";
}

// Against a map, with a hash that has few slots to fill: gaps are closed rightly.
TEST(FlowTable, AgreesWithAMap) {
  constexpr std::size_t kMost = 64;
  FlowTable table(kMost, 7);
  std::map<std::uint32_t, FlowId> expected;
  std::mt19937 random(5);
  for (int i = 0; i < 20'000; ++i) {
    const auto who = static_cast<std::uint32_t>(random() % 100);
    Flow flow = flow_between(who, 9, kNow + seconds(1));
    flow.state = FlowState::stream;  // not evicted
    const auto found = table.find(flow.tuples[random() % 2], kNow);
    ASSERT_EQ(found.has_value(), expected.contains(who)) << i;
    if (found) {
      ASSERT_EQ(found->id, expected[who]);
      table.erase(found->id);
      expected.erase(who);
    } else if (const auto id = table.add(flow)) {
      expected[who] = *id;
    } else {
      ASSERT_EQ(expected.size(), kMost);
    }
    ASSERT_EQ(table.size(), expected.size());
  }
}

TEST(FlowTable, EvictsTheOldestThatMayBe) {
  FlowTable table(3, 1);
  std::vector<FlowId> ids;
  for (std::uint16_t port = 1; port <= 3; ++port) {
    ids.push_back(*table.add(flow_between(1, port, kNow + seconds(9))));
  }
  table.refresh(ids[0]);
  table.at(ids[2])->state = FlowState::replied;
  table.refresh(ids[2]);
  EXPECT_TRUE(table.add(flow_between(1, 4, kNow + seconds(9))));
  EXPECT_EQ(table.at(ids[1]), nullptr);
  EXPECT_TRUE(table.add(flow_between(1, 5, kNow + seconds(9))));
  EXPECT_EQ(table.at(ids[0]), nullptr);
  EXPECT_NE(table.at(ids[2]), nullptr);
  EXPECT_EQ(table.evicted(), 2u);
}

TEST(FlowTable, ForgetsInSteps) {
  FlowTable table(100, 1);
  for (std::uint16_t port = 1; port <= 100; ++port) {
    table.add(flow_between(1, port, kNow + seconds(port)));
  }
  EXPECT_FALSE(table.forget_old(kNow + seconds(50), 60));
  EXPECT_EQ(table.size(), 50u);
  EXPECT_TRUE(table.forget_old(kNow + seconds(100), 60)) << "the end of the circle";
  EXPECT_TRUE(table.forget_old(kNow + seconds(100), 101));
  EXPECT_EQ(table.size(), 0u);
}

TEST(FlowTable, MayBecomeLargerAndSmaller) {
  FlowTable table(2, 1);
  std::vector<Flow> flows;
  for (std::uint16_t port = 1; port <= 50; ++port) {
    if (port == 3) table.limit(50);
    flows.push_back(flow_between(1, port, kNow + seconds(9)));
    flows.back().state = FlowState::stream;
    ASSERT_TRUE(table.add(flows.back()));
  }
  table.limit(10);
  for (const Flow& each : flows) EXPECT_TRUE(table.find(each.tuples[1], kNow));
  EXPECT_FALSE(table.add(flow_between(2, 1, kNow + seconds(9))));
  EXPECT_EQ(table.size(), 50u);
}

}  // namespace
}  // namespace godwit::net
