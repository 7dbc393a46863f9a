// What is written down, and that it is what a file may say.
#include "topology/export.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "topology/actual.hh"

namespace godwit::topology {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

Actual shop() {
  const json wire = json::parse(R"({"id": "5f", "tenant": "red", "topology": "shop", "state": "up",
      "rtt_ms": 40.31, "a": {"host": "e1", "port": "sw1-1"}, "b": {"host": "w1", "port": "lan0"}})");
  const json hosts = json::parse(R"([{"name": "w1", "site": "west"}, {"name": "e1", "site": "east"},
                                     {"name": "gone", "site": "west"}])");
  return actual(hosts,
                {{"e1",
                  {{"components",
                    json::parse(R"([{"id": "1", "name": "sw1", "tenant": "red", "topology": "shop",
            "type": "switch", "ageing_s": 300, "mirror": "", "macs": [],
            "ports": [{"name": "1", "index": 0, "id": "2", "access": 10}]}])")},
                   {"ports", json::parse(R"([{"name": "sw1-1", "tenant": "red", "kind": "component",
            "component": "sw1", "vm": "", "topology": "shop"}])")},
                   {"vms", json::array()},
                   {"wires", {wire}}}},
                 {"w1",
                  {{"components", json::array()},
                   {"ports", json::parse(R"([{"name": "lan0", "tenant": "red", "kind": "uplink",
            "component": "", "vm": "", "topology": "shop", "address": "10.9.0.1/24",
            "interface": "lan0", "state": "live"},
            {"name": "sw1-1", "tenant": "red", "kind": "nic", "component": "", "vm": "", "topology": ""}])")},
                   {"wires", {wire}}}}});
}

TEST(Export, IsAFileThatChangesNothing) {
  EXPECT_EQ(to_yaml(part_of(shop(), "shop"), "shop"), R"(name: shop
# host e1, site east
# host gone, site west: does not answer
# host w1, site west
components:
  sw1:
    host: e1
    tenant: red
    ageing_s: 300
    macs: []
    mirror: ""
    type: switch
    ports:
      "1": {access: 10}
ports:
  lan0:
    host: w1
    tenant: red
    kind: uplink  # live
    address: 10.9.0.1/24
wires:
  - [e1/sw1-1, w1/lan0]  # up, 40.3 ms
)");
}

// Whose other end is no file's to make.
TEST(Export, AWireToAnotherFleetIsAComment) {
  Actual actual;
  actual.wires.push_back({.a = {.host = "e1", .port = "lan0"},
                          .b = {.host = "b1@beta", .port = "lan1"},
                          .tenant = "default",
                          .topology = "",
                          .shown = {{"state", "up"}}});
  EXPECT_EQ(to_yaml(actual, ""), "  # - [e1/lan0, b1@beta/lan1]  # up\n");
}

TEST(Export, APictureHasAllOfIt) {
  const std::string dot = to_dot(shop());
  for (const char* part : {"site east", "host e1", "host gone: does not answer", "sw1\\nswitch",
                           "lan0\\nuplink 10.9.0.1/24", "\"component e1/sw1\" -- \"port w1/lan0\"",
                           "40.3 ms", "taillabel=\"1\""}) {
    EXPECT_THAT(dot, HasSubstr(part));
  }
  EXPECT_THAT(dot, Not(HasSubstr("c62828\", label")));
}

}  // namespace
}  // namespace godwit::topology
