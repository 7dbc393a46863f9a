// Plans, and that what is planned makes it so: on hosts that are models.
#include "topology/plan.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "topology/desired.hh"
#include "topology/topology_testing.hh"

namespace godwit::topology {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::IsEmpty;

Desired wanted(const char* text) { return parse(json::parse(text), "shop").value(); }

const char* const kShop = R"({
  "components": {"sw1": {"type": "switch", "host": "east", "ports": {"web": {"access": 10}, "lan": {}}}},
  "ports": {"lan0": {"host": "w1", "kind": "uplink", "address": "10.9.0.1/24"}},
  "vms": {"web": {"host": "e1", "nics": [{"port": "web-nic"}]}},
  "wires": [["sw1-web", "web-nic"], ["lan0", "sw1-lan"]]})";

std::string whats(const Plan& plan) {
  std::string all;
  for (const Problem& each : plan.problems) all += each.where + ": " + each.text + "\n";
  for (const Step& each : plan.steps) all += each.what + (each.prune ? " (prune)\n" : "\n");
  for (const auto& note : plan.notes) all += "note: " + note + "\n";
  return all;
}

TEST(Plan, MakesAllOfItOnceAndInOrder) {
  ModelFleet fleet;
  const Desired shop = wanted(kShop);
  const Plan first = plan(shop, fleet.actual);
  EXPECT_EQ(whats(first),
            "add port w1/lan0\nadd component e1/sw1\nrun vm e1/web\n"
            "connect e1/sw1-web and e1/web-nic\nconnect w1/lan0 and e1/sw1-lan\n");
  EXPECT_EQ(first.steps[1].request["body"]["topology"], "shop");
  EXPECT_EQ(fleet.apply(first.steps, false), 0);
  EXPECT_EQ(whats(plan(shop, fleet.actual)), "");
}

TEST(Plan, GoesOnWhereItWasBroken) {
  const Desired shop = wanted(kShop);
  const auto steps = plan(shop, ModelFleet().actual).steps;
  for (std::size_t done = 0; done <= steps.size(); ++done) {
    ModelFleet fleet;
    fleet.apply({steps.begin(), steps.begin() + static_cast<std::ptrdiff_t>(done)}, false);
    const Plan rest = plan(shop, fleet.actual);
    EXPECT_EQ(rest.steps.size(), steps.size() - done);
    EXPECT_EQ(fleet.apply(rest.steps, false), 0);
    EXPECT_EQ(whats(plan(shop, fleet.actual)), "");
  }
}

TEST(Plan, ChangesWhatDiffersAndPrunesWhatItMade) {
  ModelFleet fleet;
  fleet.apply(plan(wanted(kShop), fleet.actual).steps, false);
  const Desired less = wanted(R"({
    "components": {"sw1": {"type": "switch", "host": "east", "ageing_s": 60, "ports": {"web": {"access": 20}}}},
    "ports": {"lan0": {"host": "w1", "kind": "uplink", "address": "10.9.0.2/24"}}})");
  const Plan changes = plan(less, fleet.actual);
  EXPECT_EQ(whats(changes),
            "disconnect w1/lan0 and e1/sw1-lan\ndisconnect e1/sw1-web and e1/web-nic (prune)\n"
            "stop vm e1/web (prune)\nremove vm e1/web, but not its disks (prune)\n"
            "remove port w1/lan0\n"
            "remove ports of component e1/sw1: [\"lan\"] (prune)\n"
            "remove port e1/web-nic (prune)\n"
            "add port w1/lan0 anew\nchange component e1/sw1: ageing_s, access of web\n");
  EXPECT_EQ(fleet.apply(changes.steps, true), 0);
  EXPECT_EQ(whats(plan(less, fleet.actual)), "");
  EXPECT_EQ(fleet.apply(plan(wanted("{}"), fleet.actual).steps, true), 0);
  EXPECT_THAT(fleet.actual.ports, IsEmpty());
  EXPECT_THAT(fleet.actual.components, IsEmpty());
}

// Settings go back where this topology made the thing, else they are somebody's.
TEST(Plan, WhatIsNoLongerSaidIsAtItsDefault) {
  const char* const all = R"({
    "components": {"sw1": {"host": "e1", "mirror": "web", "ports": {"web": {"access": 10}}}},
    "ports": {"lan0": {"host": "w1", "kind": "uplink", "interface": "lan", "address": "10.9.0.1/24"},
              "nic0": {"host": "w1"}}})";
  Desired less = wanted(R"({
    "components": {"sw1": {"host": "e1", "ports": {"web": {}}}},
    "ports": {"lan0": {"host": "w1", "kind": "uplink"}, "nic0": {"host": "w1"}}})");
  less.components[0].whole =
      json::parse(R"({"mirror": "", "ageing_s": 300, "ports": [{"name": "web", "access": ""}]})");
  ModelFleet fleet;
  fleet.apply(plan(wanted(all), fleet.actual).steps, false);
  const Plan changes = plan(less, fleet.actual);
  EXPECT_EQ(whats(changes),
            "remove port w1/lan0\nadd port w1/lan0 anew\n"
            "change component e1/sw1: mirror, access of web\n");
  EXPECT_EQ(fleet.apply(changes.steps, false), 0);
  EXPECT_EQ(whats(plan(less, fleet.actual)), "");

  for (auto* things : {&fleet.actual.components, &fleet.actual.ports}) {
    for (Thing& each : *things) each.topology = "";
  }
  fleet.apply(plan(wanted(all), fleet.actual).steps, false);
  EXPECT_EQ(whats(plan(less, fleet.actual)), "") << "others made it";
  less.is_whole = false;
  for (Thing& each : fleet.actual.components) each.topology = "shop";
  EXPECT_EQ(whats(plan(less, fleet.actual)), "") << "others may say it";
}

// A switch that says no ports has none, a gateway its usual ones.
TEST(Plan, PortsThatAreNoLongerSaidGo) {
  ModelFleet fleet;
  fleet.apply(
      plan(wanted(R"({"components": {"gate": {"host": "e1", "ports": ["inside", "dmz"]}}})"),
           fleet.actual)
          .steps,
      false);
  Desired less = wanted(R"({"components": {"gate": {"host": "e1"}},
      "ports": {"web": {"host": "e1"}}, "wires": [["web", "gate-inside"]]})");
  less.components[0].whole = {{"ports", {{{"name", "inside"}}}}};
  EXPECT_EQ(whats(plan(less, fleet.actual)),
            "remove ports of component e1/gate: [\"dmz\"] (prune)\nadd port e1/web\n"
            "connect e1/web and e1/gate-inside\n");
}

TEST(Plan, LeavesAloneWhatOthersMade) {
  ModelFleet fleet;
  fleet.apply(plan(wanted(kShop), fleet.actual).steps, false);
  // A port of the operator's, at a port of the switch that they added, and one at one of ours.
  for (Wire& wire : fleet.actual.wires) {
    if (wire.is_at({"w1", "lan0"})) wire.topology = "";
  }
  const Plan nothing = plan(wanted("{}"), fleet.actual);
  EXPECT_THAT(whats(nothing), HasSubstr("note: port w1/lan0 stays"));
  EXPECT_THAT(whats(nothing), HasSubstr("note: component e1/sw1 stays"));
  EXPECT_EQ(fleet.apply(nothing.steps, true), 0);
  EXPECT_EQ(fleet.actual.wires.size(), 1u);
  EXPECT_EQ(fleet.actual.components.size(), 1u);
  // Another topology's are not ours either.
  Desired other = wanted("{}");
  other.name = "other";
  EXPECT_EQ(whats(plan(other, fleet.actual)), "");
}

TEST(Plan, APortThatIsWiredElsewhereIsTakenOnlyFromItself) {
  ModelFleet fleet;
  fleet.apply(plan(wanted(kShop), fleet.actual).steps, false);
  const char* const moved =
      R"({"ports": {"lan1": {"host": "w1"}}, "wires": [["lan1", "e1/sw1-lan"]]})";
  const Plan ours = plan(wanted(moved), fleet.actual);
  EXPECT_THAT(whats(ours), HasSubstr("disconnect w1/lan0 and e1/sw1-lan\n"));
  Desired other = wanted(moved);
  other.name = "other";
  EXPECT_THAT(whats(plan(other, fleet.actual)),
              HasSubstr("/wires/0: port e1/sw1-lan has a wire to w1/lan0"));
  EXPECT_THAT(plan(other, fleet.actual).steps, IsEmpty());
}

TEST(Plan, AVmThatMovedIsWhereItIs) {
  ModelFleet fleet;
  fleet.apply(plan(wanted(kShop), fleet.actual).steps, false);
  for (auto* things : {&fleet.actual.vms, &fleet.actual.ports}) {
    for (Thing& each : *things) {
      if (each.name == "web" || each.name == "web-nic") each.host = "w1";
    }
  }
  for (Wire& wire : fleet.actual.wires) {
    if (wire.b.port == "web-nic") wire.b.host = "w1";
  }
  EXPECT_EQ(whats(plan(wanted(kShop), fleet.actual)), "");
}

TEST(Plan, AComponentThatMovedIsWhereItIs) {
  ModelFleet fleet;
  fleet.apply(plan(wanted(kShop), fleet.actual).steps, false);
  for (auto* things : {&fleet.actual.components, &fleet.actual.ports}) {
    for (Thing& each : *things) {
      if (each.name.starts_with("sw1")) each.host = "w1";
    }
  }
  for (Wire& wire : fleet.actual.wires) {
    for (auto* end : {&wire.a, &wire.b}) {
      if (end->port.starts_with("sw1")) end->host = "w1";
    }
  }
  EXPECT_EQ(whats(plan(wanted(kShop), fleet.actual)), "");
  // Another's of that name, there, is another one.
  for (Thing& each : fleet.actual.components) each.topology = "other";
  EXPECT_THAT(whats(plan(wanted(kShop), fleet.actual)), HasSubstr("add component e1/sw1"));
}

TEST(Plan, WhatCannotBeHasItsPlaceAndAWayOut) {
  ModelFleet fleet;
  const auto told = [&](const char* text) { return whats(plan(wanted(text), fleet.actual)); };
  EXPECT_EQ(told(R"({"ports": {"web": {"host": "eats"}}})"),
            "/ports/web: 'web' is at no host or site 'eats': there are e1, e2, east, w1, west\n");
  EXPECT_THAT(told(R"({"wires": [["a", "e1/b"]]})"), HasSubstr("/wires/0: there is no port 'a'"));
  EXPECT_THAT(
      told(R"({"ports": {"e1/a": {}, "w1/a": {}, "b": {"host": "e1"}}, "wires": [["a", "b"]]})"),
      HasSubstr("write e1/a or w1/a"));
  EXPECT_THAT(told(R"({"ports": {"a": {"host": "e1"}}, "wires": [["a", "e1/a"]]})"),
              HasSubstr("wired to itself"));
  EXPECT_THAT(
      told(
          R"({"ports": {"s-a": {"host": "e1"}}, "components": {"s": {"host": "e1", "ports": {"a": {}}}}})"),
      HasSubstr("two ports 's-a' at host e1"));
  fleet.actual.ports.push_back(
      {"e1", "web", "red", "", {{"kind", "bridge"}, {"vm", ""}, {"component", ""}}});
  EXPECT_THAT(told(R"({"ports": {"web": {"host": "e1"}}})"),
              HasSubstr("first godwit --at e1 port rm web"));
  fleet.actual.components.push_back({"e1", "sw", "red", "", {{"type", "router"}}});
  EXPECT_THAT(told(R"({"components": {"sw": {"host": "e1"}}})"),
              HasSubstr("a router of tenant red"));
  fleet.actual.hosts[2].is_up = false;
  EXPECT_THAT(told(R"({"ports": {"a": {"host": "west"}}})"),
              HasSubstr("host w1, where 'a' is to be"));
}

// ---- any topology ----

class RandomTopology final {
 public:
  explicit RandomTopology(unsigned seed) : random_(seed) {}

  Desired make(const std::string& name) {
    json file = {{"name", name}};
    std::vector<std::string> free;
    for (int i = 0; i < pick(4); ++i) {
      const std::string component = "sw" + std::to_string(pick(4)), host = any_host();
      json ports = json::object();
      for (int p = 0; p < pick(5); ++p) {
        ports[std::to_string(p)] = pick(2) == 0 ? json::object() : json{{"access", 1 + pick(3)}};
        free.push_back(host + "/" + component + "-" + std::to_string(p));
      }
      file["components"][host + "/" + component] = {{"ports", ports}, {"ageing_s", 60 + pick(2)}};
    }
    for (int i = 0; i < pick(5); ++i) {
      const std::string port = any_host() + "/p" + std::to_string(pick(6));
      file["ports"][port] = {{"kind", pick(2) == 0 ? "uplink" : "nic"}};
      free.push_back(port);
    }
    if (pick(2) == 0) {
      file["vms"]["web"] = {{"host", any_host()}, {"nics", {{{"port", "web-nic"}}}}};
    }
    std::ranges::sort(free);
    free.erase(std::ranges::unique(free).begin(), free.end());
    std::ranges::shuffle(free, random_);
    // A component that was made twice has the ports of the last.
    std::erase_if(free, [&](const std::string& port) {
      const auto dash = port.rfind('-');
      if (dash == std::string::npos) return false;
      const json& component = file["components"][port.substr(0, dash)];
      return !component["ports"].contains(port.substr(dash + 1));
    });
    for (std::size_t i = 0; i + 1 < free.size(); i += 2)
      file["wires"].push_back({free[i], free[i + 1]});
    return parse(file, name).value();
  }

 private:
  int pick(int below) { return std::uniform_int_distribution<int>(0, below - 1)(random_); }
  std::string any_host() { return std::array{"e1", "e2", "w1"}[static_cast<std::size_t>(pick(3))]; }
  std::mt19937 random_;
};

TEST(Plan, WhatIsPlannedMakesItSo) {
  for (unsigned seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(seed);
    RandomTopology random(seed);
    ModelFleet fleet;
    // One of another name first, which is left alone: its hosts' things have other names.
    Desired other = wanted(R"({"components": {"other": {"host": "e1", "ports": {"a": {}, "b": {}}}},
                               "ports": {"o": {"host": "w1"}}, "wires": [["o", "other-a"]]})");
    other.name = "other";
    EXPECT_EQ(fleet.apply(plan(other, fleet.actual).steps, true), 0);
    for (int round = 0; round < 4; ++round) {
      const Desired desired = random.make("shop");
      const bool prune = seed % 2 == 0 || round == 3;
      const Plan changes = plan(desired, fleet.actual);
      ASSERT_EQ(fleet.apply(changes.steps, prune), 0) << whats(changes);
      Plan again = plan(desired, fleet.actual);
      if (!prune) std::erase_if(again.steps, [](const Step& step) { return step.prune; });
      ASSERT_EQ(whats(again), "");
    }
    ASSERT_EQ(whats(plan(other, fleet.actual)), "");
    ASSERT_EQ(fleet.apply(plan(wanted("{}"), fleet.actual).steps, true), 0);
    ASSERT_EQ(fleet.actual.components.size(), 1u);
    ASSERT_EQ(fleet.actual.wires.size(), 1u);
  }
}

}  // namespace
}  // namespace godwit::topology
