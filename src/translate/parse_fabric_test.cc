#include <gmock/gmock.h>

#include "translate/fabric.hh"

namespace godwit::translate {
namespace {

using nlohmann::json;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

json file() {
  return json::parse(R"({
    "name": "east", "tiers": ["edge", "core"],
    "devices": {
      "core1": {"tier": "core", "outside": true, "agent": "r9"},
      "edge1": {"tier": "edge", "up": ["core1"], "hosts": ["h1", "h2"],
                "networks": ["10.1.1.0/24", "fd01:1::/64"], "locators": ["10.1.1.192/26"]},
      "edge2": {"tier": "edge", "up": ["core1"], "hosts": ["h3"], "networks": ["10.1.2.0/24"]}
    }})");
}

std::vector<std::string> problems_of(const json& file) {
  const auto fabric = parse_fabric(file);
  std::vector<std::string> texts;
  if (fabric) return texts;
  for (const Problem& each : fabric.error()) texts.push_back(each.where + ": " + each.text);
  return texts;
}

TEST(ParseFabric, DevicesHostsAndNetworks) {
  const auto fabric = parse_fabric(file());
  ASSERT_TRUE(fabric);
  EXPECT_THAT(fabric->tiers, ElementsAre("host", "edge", "core"));
  const Device& edge = fabric->devices[*fabric->find("edge1")];
  EXPECT_EQ(edge.tier, 1U);
  EXPECT_EQ(edge.agent, "edge1");
  EXPECT_THAT(edge.neighbours, UnorderedElementsAre(*fabric->find("core1"), *fabric->find("h1"),
                                                    *fabric->find("h2")));
  EXPECT_EQ(fabric->devices[*fabric->find("core1")].agent, "r9");
  const Ip address = *parse_ip("10.1.1.20");
  EXPECT_THAT(fabric->homes_of(address), ElementsAre(*fabric->find("edge1")));
  EXPECT_THAT(fabric->locators_of(*fabric->find("h2"), address),
              ElementsAre(*parse_ip_prefix("10.1.1.192/26")));
  EXPECT_THAT(fabric->locators_of(*fabric->find("h3"), address), ElementsAre());
}

TEST(ParseFabric, WhatIsWrongIsToldWithItsPlace) {
  json wrong = file();
  wrong["devices"]["edge1"]["up"] = {"core2", "edge2"};
  wrong["devices"]["edge2"]["networks"] = {"10.1.2.1/24"};
  wrong["devices"]["core1"]["locators"] = {"10.9.0.0/24"};
  wrong["devices"]["core1"]["colour"] = 3;
  wrong["devices"]["core1"]["tier"] = "cellar";
  wrong["devices"]["core1"]["outside"] = "maybe";
  EXPECT_THAT(
      problems_of(wrong),
      UnorderedElementsAre(
          "/devices/core1/colour: 'colour' is none of tier, up, hosts, networks, locators, "
          "outside, agent",
          "/devices/core1/tier: device 'core1' is of no tier: one of edge, core",
          "/devices/core1/locators: 10.9.0.0/24 is not a part of the networks of 'core1'",
          "/devices/core1/outside: 'outside' is true or false",
          "/devices/edge1/up: there is no device 'core2'",
          "/devices/edge1/up: 'edge2' is not of a tier above that of 'edge1'",
          "/devices/edge2/networks: '10.1.2.1/24' is no network: it is one of 10.1.2.0/24"));
}

TEST(ParseFabric, ANetworkIsAtOnePlace) {
  json wrong = file();
  wrong["devices"]["edge2"]["networks"] = {"10.1.1.128/25"};
  EXPECT_THAT(problems_of(wrong), Contains(HasSubstr("10.1.1.128/25 is at 'edge1' too")));
  json pair = file();
  pair["devices"]["edge2"]["networks"] = pair["devices"]["edge1"]["networks"];
  pair["devices"]["edge2"]["hosts"] = pair["devices"]["edge1"]["hosts"];
  EXPECT_THAT(problems_of(pair), ElementsAre());
}

TEST(ParseFabric, AllReachAll) {
  json wrong = file();
  wrong["devices"]["edge2"].erase("up");
  EXPECT_THAT(problems_of(wrong),
              ElementsAre("/devices/edge2: 'edge2' is not joined to 'core1' by any way"));
}

TEST(ParseFabric, AnythingElseIsRefused) {
  for (const char* text : {"null", "[]", "3", "{}", R"({"tiers":[]})", R"({"tiers":["edge"]})",
                           R"({"tiers":["host"],"devices":{"a":{"tier":"host"}}})",
                           R"({"tiers":["edge"],"devices":{"a":null}})",
                           R"({"tiers":["edge"],"devices":{"a":{"tier":"edge","up":3}}})",
                           R"({"tiers":["edge"],"devices":{"a":{"tier":"edge","hosts":["a"]}}})"}) {
    EXPECT_FALSE(problems_of(json::parse(text)).empty()) << text;
  }
}

}  // namespace
}  // namespace godwit::translate
