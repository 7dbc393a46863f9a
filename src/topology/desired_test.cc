// Topologies as files have them: what is read, and what each mistake is told.
#include "topology/desired.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace godwit::topology {
namespace {

using nlohmann::json;
using testing::HasSubstr;

json shop() {
  return json::parse(R"({"tenant": "acme",
    "components": {
      "sw1": {"type": "switch", "host": "east", "ports": {"web": {"access": 10}, "db": null}},
      "w1/sw1": {"host": "w1", "ageing_s": 60, "ports": [{"name": "a"}, "b"]}},
    "ports": {"lan0": {"host": "e1", "kind": "uplink", "tenant": "other"}},
    "vms": {"db": {"host": "e1", "memory": "1GiB"}},
    "wires": [["sw1-web", "lan0"], {"a": "e1/x", "b": "w1/sw1-a"}]})");
}

TEST(Desired, HasWhatTheFileSays) {
  const auto desired = parse(shop(), "shop");
  ASSERT_TRUE(desired) << desired.error().front().text;
  EXPECT_EQ(desired->name, "shop");
  ASSERT_EQ(desired->components.size(), 2u);
  const WantedThing& sw1 = desired->components[0];
  EXPECT_EQ(sw1.place, "east");
  EXPECT_EQ(sw1.tenant, "acme");
  EXPECT_EQ(sw1.settings["ports"],
            json::parse(R"([{"name": "db"}, {"name": "web", "access": 10}])"));
  EXPECT_FALSE(sw1.settings.contains("host"));
  const WantedThing& other = desired->components[1];
  EXPECT_EQ(other.name, "sw1");
  EXPECT_EQ(other.place, "w1");
  EXPECT_EQ(other.where, "/components/w1~1sw1");
  EXPECT_EQ(other.settings["ports"], json::parse(R"([{"name": "a"}, {"name": "b"}])"));
  EXPECT_EQ(desired->ports[0].tenant, "other");
  EXPECT_EQ(desired->vms[0].settings, json::parse(R"({"memory": "1GiB"})"));
  EXPECT_EQ(desired->wires[1].a, "e1/x");
}

TEST(Desired, EachMistakeHasItsPlace) {
  const auto told = [](const char* where, const json& value) {
    json file = shop();
    file[json::json_pointer(where)] = value;
    const auto desired = parse(file, "shop");
    if (desired) return std::string("nothing wrong");
    std::string all;
    for (const Problem& problem : desired.error())
      all += problem.where + ": " + problem.text + "\n";
    return all;
  };
  EXPECT_THAT(told("/compnents", json::object()), HasSubstr("/compnents: 'compnents' is none of"));
  EXPECT_THAT(told("/name", "My Shop"), HasSubstr("/name: 'My Shop' is no name"));
  EXPECT_THAT(told("/ports", 7), HasSubstr("/ports: 'ports' is a mapping"));
  EXPECT_THAT(told("/ports/lan1", nullptr), HasSubstr("/ports/lan1: port 'lan1' needs settings"));
  EXPECT_THAT(told("/ports/lan1", json::object()), HasSubstr("port 'lan1' is nowhere: add host:"));
  EXPECT_THAT(told("/ports/UP", {{"host", "e1"}}), HasSubstr("'UP' is no name of a port"));
  EXPECT_THAT(told("/vms/db/tenant", "A B"),
              HasSubstr("/vms/db/tenant: 'A B' is no name of a tenant"));
  EXPECT_THAT(told("/components/w1~1sw1/host", "e1"), HasSubstr("by its key"));
  EXPECT_THAT(told("/components/sw1/ports/db", 7),
              HasSubstr("/components/sw1/ports/db: a port of"));
  EXPECT_THAT(told("/components/w1~1sw1/ports/2", "a"), HasSubstr("two ports 'sw1-a'"));
  EXPECT_THAT(told("/wires/2", {"only-one"}), HasSubstr("/wires/2: a wire is a pair"));
  EXPECT_THAT(told("/wires/2", {"lan0", "y"}), HasSubstr("port 'lan0' has another wire"));
  EXPECT_THAT(told("/wires", "none"), HasSubstr("a list of pairs"));
  EXPECT_EQ(told("/wires", nullptr), "nothing wrong");
  EXPECT_FALSE(parse(json::array(), "shop"));
}

}  // namespace
}  // namespace godwit::topology
