#include "topology/stretch.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "topology/desired.hh"
#include "topology/topology_testing.hh"

namespace godwit::topology {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

// sw1 at e1, with a vm's port; an unrelated sw2.
ModelFleet a_fleet() {
  ModelFleet fleet;
  const json file = {{"components",
                      {{"sw1", {{"host", "e1"}, {"ports", {{"lan", json::object()}}}}},
                       {"sw2", {{"host", "w1"}, {"ports", {{"lan", json::object()}}}}}}},
                     {"ports", {{"lan0", {{"host", "w1"}, {"kind", "uplink"}}}}}};
  EXPECT_EQ(fleet.apply(plan(parse(file, "shop").value(), fleet.actual).steps, false), 0);
  return fleet;
}

void take(ModelFleet& fleet, const Result<std::vector<Step>>& steps) {
  ASSERT_TRUE(steps) << steps.error().text;
  for (int phase = 0; phase <= static_cast<int>(kLastPhase); ++phase) {
    for (const Step& step : *steps) {
      if (static_cast<int>(step.phase) == phase) {
        EXPECT_TRUE(fleet.apply(step)) << step.what;
      }
    }
  }
}

TEST(Stretch, EachInstanceIsJoinedToAllOthers) {
  ModelFleet fleet = a_fleet();
  take(fleet, stretch(fleet.actual, "e1", "sw1", "west"));
  EXPECT_EQ(fleet.actual.wires.size(), 1u);
  take(fleet, stretch(fleet.actual, "w1", "sw1", "e2"));
  EXPECT_EQ(fleet.actual.wires.size(), 3u);
  EXPECT_THAT(stretched_over(fleet.actual, "e1", "sw1"), UnorderedElementsAre("e1", "e2", "w1"));
  for (const char* host : {"e1", "e2", "w1"}) {
    EXPECT_THAT(stretch(fleet.actual, "e1", "sw1", host).value(), IsEmpty());
  }
  take(fleet, unstretch(fleet.actual, "e1", "sw1", "w1"));
  EXPECT_THAT(stretched_over(fleet.actual, "e1", "sw1"), UnorderedElementsAre("e1", "e2"));
  EXPECT_EQ(fleet.actual.wires.size(), 1u);
  EXPECT_THAT(unstretch(fleet.actual, "e1", "sw1", "w1").value(), IsEmpty());
  take(fleet, unstretch(fleet.actual, "e1", "sw1", "e2"));
  EXPECT_EQ(fleet.actual.components.size(), 2u);
  EXPECT_THAT(fleet.actual.wires, IsEmpty());
}

TEST(Stretch, GoesOnWhereItWasBroken) {
  const ModelFleet before = a_fleet();
  const auto steps = stretch(before.actual, "e1", "sw1", "w1").value();
  for (std::size_t done = 0; done <= steps.size(); ++done) {
    ModelFleet fleet = before;
    for (std::size_t i = 0; i < done; ++i) EXPECT_TRUE(fleet.apply(steps[i]));
    take(fleet, stretch(fleet.actual, "e1", "sw1", "w1"));
    EXPECT_THAT(stretched_over(fleet.actual, "e1", "sw1"), UnorderedElementsAre("e1", "w1"));
  }
}

TEST(Stretch, WhatWouldTouchOthersIsRefused) {
  ModelFleet fleet = a_fleet();
  const auto why = [](const Result<std::vector<Step>>& steps) {
    return steps ? std::string() : steps.error().text;
  };
  EXPECT_THAT(why(stretch(fleet.actual, "e1", "sw3", "w1")),
              HasSubstr("no switch 'sw3' on host e1"));
  EXPECT_THAT(why(stretch(fleet.actual, "e1", "sw1", "north")),
              HasSubstr("no host or site 'north'"));
  EXPECT_THAT(why(unstretch(fleet.actual, "e1", "sw1", "e1")), HasSubstr("of host e1 itself"));
  // Another switch of that name.
  for (Thing& each : fleet.actual.components) {
    if (each.name == "sw2") each.name = "sw1";
  }
  EXPECT_THAT(why(stretch(fleet.actual, "e1", "sw1", "w1")), HasSubstr("another component 'sw1'"));
  ModelFleet wired = a_fleet();
  take(wired, stretch(wired.actual, "e1", "sw1", "w1"));
  wired.actual.wires.push_back(
      {.a = {"w1", "lan0"}, .b = {"w1", "sw1-lan"}, .tenant = {}, .topology = {}, .shown = {}});
  EXPECT_THAT(why(unstretch(wired.actual, "e1", "sw1", "w1")),
              HasSubstr("w1/sw1-lan is wired to w1/lan0"));
}

// A trunk keeps the name that it had when its instance was elsewhere.
TEST(Stretch, AnInstanceThatMovedIsOneOfThem) {
  ModelFleet fleet = a_fleet();
  take(fleet, stretch(fleet.actual, "e1", "sw1", "w1"));
  for (auto* things : {&fleet.actual.components, &fleet.actual.ports}) {
    for (Thing& each : *things) {
      if (each.host == "e1" && each.name.starts_with("sw1")) each.host = "e2";
    }
  }
  for (Wire& wire : fleet.actual.wires) {
    for (auto* end : {&wire.a, &wire.b}) {
      if (end->host == "e1") end->host = "e2";
    }
  }
  EXPECT_THAT(stretched_over(fleet.actual, "w1", "sw1"), UnorderedElementsAre("w1", "e2"));
  take(fleet, unstretch(fleet.actual, "w1", "sw1", "e2"));
  EXPECT_THAT(stretched_over(fleet.actual, "w1", "sw1"), UnorderedElementsAre("w1"));
  EXPECT_THAT(fleet.actual.wires, IsEmpty());
}

}  // namespace
}  // namespace godwit::topology
