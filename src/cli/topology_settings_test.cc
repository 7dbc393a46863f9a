// Components of a topology in the form in which hosts show them.
#include "cli/topology_settings.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "topology/desired.hh"

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
  EXPECT_FALSE(gate.contains("masquerade")) << "what is not said is left as it is";
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

}  // namespace
}  // namespace godwit::cli
