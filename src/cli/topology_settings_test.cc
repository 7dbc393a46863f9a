// Components of a topology in the form in which hosts show them.
#include "cli/topology_settings.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fabric/component.hh"
#include "topology/desired.hh"
#include "topology/plan.hh"

namespace godwit::cli {
namespace {

using nlohmann::json;
using testing::HasSubstr;

topology::Desired wanted(const char* components) {
  return topology::parse({{"components", json::parse(components)}}, "shop").value();
}

TEST(TopologySettings, SayTheSameInOneForm) {
  auto desired = wanted(R"({"sw1": {"host": "e1", "ports": {"web": {"access": 10}, "up": null},
      "macs": [{"mac": "52:54:00:00:00:AA", "port": "web", "vlan": 10}]},
      "gate": {"host": "e1", "type": "nat", "ports": {
          "inside": {"address": "10.7.0.1/24"}, "outside": {"address": "198.51.100.7/24"}}}})");
  const auto problems = read_settings(desired);
  ASSERT_TRUE(problems.empty()) << problems.front().text;
  const json& gate = desired.components[0].settings;
  EXPECT_EQ(gate["ports"][0]["address"], json::array({"10.7.0.1/24"}));
  EXPECT_FALSE(gate.contains("masquerade")) << "what is not said is not in the request";
  EXPECT_EQ(desired.components[0].whole["masquerade"], json::parse(R"([{"out": ["outside"]}])"));
  const json& sw1 = desired.components[1].settings;
  EXPECT_EQ(sw1["macs"][0]["mac"], "52:54:00:00:00:aa");
  EXPECT_EQ(sw1["ports"], json::parse(R"([{"name": "up"}, {"name": "web", "access": 10}])"));
  EXPECT_FALSE(sw1.contains("ageing_s"));
}

TEST(TopologySettings, MistakesAreToldWithTheirPlace) {
  const auto told = [](const char* components) {
    auto desired = wanted(components);
    const auto problems = read_settings(desired);
    return problems.size() == 1 ? problems[0].where + ": " + problems[0].text : std::string();
  };
  EXPECT_THAT(told(R"({"sw1": {"host": "e1", "aging_s": 60}})"),
              HasSubstr("/components/sw1: component 'sw1': there is no 'aging_s' here"));
  EXPECT_THAT(told(R"({"sw1": {"host": "e1", "ports": {"a": {"access": 5000}}}})"),
              HasSubstr("'access'"));
  EXPECT_THAT(told(R"({"r": {"host": "e1", "type": "hub"}})"), HasSubstr("not 'hub'"));
}

// ---- what is no longer said ----

// One of each type with all of its settings, and the same with nothing that it can do without.
const char* const kRich[] = {
    R"({"ageing_s": 60, "most_macs": 99, "snooping": false, "mirror": "b",
        "macs": [{"mac": "52:54:00:00:00:01", "port": "a", "vlan": 10}],
        "ports": {"a": {"access": 10, "isolated": true, "flooded_per_s": 50},
                  "b": {"trunk": [5, 6], "native": 5, "stretched": true, "mirrored": true}}})",
    R"({"type": "router", "most_neighbours": 99, "most_flows": 99, "default": "drop",
        "routes": [{"to": "10.9.0.0/16", "via": "10.1.0.9", "from": "10.1.0.0/25"}],
        "sets": [{"name": "web", "members": [80]}],
        "rules": [{"action": "allow", "in": "a", "protocol": "tcp", "ports": "@web", "log": true}],
        "masquerade": [{"out": "b"}], "one_to_one": [{"outside": "192.0.2.8/29", "inside": "10.7.0.8/29"}],
        "forward": [{"address": "192.0.2.1", "protocol": "tcp", "ports": 80, "to": "10.1.0.9"}],
        "ports": {"a": {"address": ["10.1.0.1/24", "fd00::1/64"], "mac": "52:54:00:00:00:02", "shared": true,
                        "advertise": true, "dns": "fd00::53", "relay": "192.0.2.2"},
                  "b": {"address": "192.0.2.1/24", "mtu": 1400, "proxy": true}}})",
    R"({"type": "nat", "masquerade": [], "ports": {"inside": {"mtu": 1400}, "outside": null}})",
    R"({"type": "firewall", "default": "allow", "pass": [2054, 35020], "most_flows": 99,
        "rules": [{"action": "reject", "in": "inside", "icmp_types": [8], "protocol": "icmp"}]})",
    R"({"type": "dhcp", "address": "10.7.0.2/24", "mac": "52:54:00:00:00:03",
        "networks": [{"prefix": "10.7.0.0/24", "range": "10.7.0.9-10.7.0.20", "router": "10.7.0.1",
                      "dns": "9.9.9.9", "domain": "shop", "mtu": 1400, "lease_s": 60,
                      "routes": [{"to": "10.8.0.0/16", "via": "10.7.0.1"}]}],
        "reservations": [{"mac": "52:54:00:00:00:04", "address": "10.7.0.9"}]})"};

const char* const kPoor[] = {
    R"({"ports": {"a": null, "b": null}})",
    R"({"type": "router", "ports": {"a": null, "b": null}})", R"({"type": "nat"})",
    R"({"type": "firewall"})",
    R"({"type": "dhcp", "address": "10.7.0.2/24", "networks": [{"prefix": "10.7.0.0/24"}]})"};

topology::Desired wanted_one(const json& component) {
  json file = {{"name", "shop"}, {"components", {{"e1/it", component}}}};
  topology::Desired desired = topology::parse(file, "shop").value();
  const auto problems = read_settings(desired);
  for (const auto& problem : problems) ADD_FAILURE() << problem.text;
  return desired;
}

// A host with one component, which this topology made, or somebody else.
class OneComponent final {
 public:
  OneComponent(const json& component, std::string made_by) : made_by_(std::move(made_by)) {
    json request = wanted_one(component).components[0].settings;
    request["name"] = "it";
    record_ = fabric::new_component(request).value();
  }

  topology::Plan plan(const topology::Desired& desired) const {
    topology::Actual actual;
    actual.hosts = {{"e1", "east", true}};
    actual.components = {{"e1", "it", "default", made_by_, shown()}};
    for (const auto& port : record_.ports) {
      const json port_shown = {{"component", "it"}, {"kind", "component"}};
      actual.ports.push_back({"e1", "it-" + port.name, "default", made_by_, port_shown});
    }
    return topology::plan(desired, actual);
  }
  void take(const topology::Plan& plan) {
    for (const topology::Step& step : plan.steps) {
      auto after = fabric::changed(record_, step.request["body"]);
      ASSERT_TRUE(after) << after.error().text << "\n" << step.request.dump();
      record_ = *std::move(after);
    }
  }
  json shown() const { return fabric::to_json(record_); }

 private:
  std::string made_by_;
  fabric::ComponentRecord record_;
};

TEST(TopologySettings, WhatIsNoLongerSaidGoesBackOfEveryTypeAndMember) {
  for (std::size_t i = 0; i < std::size(kRich); ++i) {
    const json rich = json::parse(kRich[i]), poor = json::parse(kPoor[i]);
    for (const auto& [before, after] : {std::pair(rich, poor), std::pair(poor, rich)}) {
      SCOPED_TRACE(before.dump());
      OneComponent host(before, "shop");
      EXPECT_TRUE(host.plan(wanted_one(before)).steps.empty());
      const auto changes = host.plan(wanted_one(after));
      EXPECT_EQ(changes.steps.size(), 1u);
      host.take(changes);
      EXPECT_EQ(host.shown(), OneComponent(after, "shop").shown());
      EXPECT_TRUE(host.plan(wanted_one(after)).steps.empty());
    }
    // Each alone.
    for (const auto& [key, value] : rich.items()) {
      if (key == "type" || key == "address" || key == "ports" || key == "sets") continue;
      SCOPED_TRACE(key);
      json less = rich;
      less.erase(key);
      if (poor.contains(key)) less[key] = poor[key];
      if (key == "networks") less.erase("reservations");
      OneComponent host(rich, "shop");
      host.take(host.plan(wanted_one(less)));
      EXPECT_NE(host.shown(), OneComponent(rich, "shop").shown());
      EXPECT_EQ(host.shown(), OneComponent(less, "shop").shown());
    }
    for (const auto& [port, settings] : rich.value("ports", json::object()).items()) {
      for (const auto& [key, value] : settings.items()) {
        if (key == "address") continue;  // `shared` and `via` cannot be without
        SCOPED_TRACE(port + "." + key);
        json less = rich;
        less["ports"][port].erase(key);
        OneComponent host(rich, "shop");
        host.take(host.plan(wanted_one(less)));
        EXPECT_NE(host.shown(), OneComponent(rich, "shop").shown());
        EXPECT_EQ(host.shown(), OneComponent(less, "shop").shown());
      }
    }
    EXPECT_TRUE(OneComponent(rich, "other").plan(wanted_one(poor)).steps.empty() ||
                poor.contains("networks"))
        << "others made it: what is not said is theirs";
  }
}

// Between any two kinds of a switch's port.
TEST(TopologySettings, AccessAndTrunkEndEachOther) {
  const char* const kinds[] = {R"({})",
                               R"({"access": 10})",
                               R"({"access": 20})",
                               R"({"trunk": [5]})",
                               R"({"trunk": [5], "native": 1})",
                               R"({"native": 2})"};
  for (const char* before : kinds) {
    for (const char* after : kinds) {
      SCOPED_TRACE(std::string(before) + " " + after);
      const json from = {{"ports", {{"a", json::parse(before)}}}};
      const json to = {{"ports", {{"a", json::parse(after)}}}};
      OneComponent host(from, "shop");
      host.take(host.plan(wanted_one(to)));
      EXPECT_EQ(host.shown(), OneComponent(to, "shop").shown());
    }
  }
}

}  // namespace
}  // namespace godwit::cli
