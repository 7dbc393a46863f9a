#include "qemu/nic_network.hh"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "qemu/vm_spec.hh"

namespace godwit::qemu {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

json example() {
  return {{"addresses", {"203.0.113.7/24", "fd77::7/128"}},
          {"gateways", {"203.0.113.1", "fe80::1"}},
          {"resolvers", json::array({"192.0.2.53"})},
          {"mtu", 1400U}};
}

TEST(NicNetwork, ComesBackAsItWas) {
  const auto network = nic_network_from_json(example());
  ASSERT_TRUE(network) << network.error().text;
  EXPECT_EQ(network->addresses[0].length, 24);
  EXPECT_EQ(network->gateway4, *parse_ip("203.0.113.1"));
  EXPECT_EQ(network->gateway6, *parse_ip("fe80::1"));
  EXPECT_EQ(to_json(*network), example());
  const auto least = nic_network_from_json({{"addresses", json::array({"203.0.113.7/24"})}});
  ASSERT_TRUE(least) << least.error().text;
  EXPECT_EQ(least->mtu, 1500U);
  EXPECT_EQ(nic_network_from_json(to_json(*least)), *least);
}

TEST(NicNetwork, GoesWithTheVm) {
  VmSpec spec;
  spec.id = *VmId::parse("00112233445566778899aabbccddeeff");
  spec.name = "web";
  spec.machine = "pc-q35-7.2";
  spec.kernel = "/vmlinuz";
  spec.nics = {{.port = *PortId::parse("b0000000000000000000000000000002"),
                .name = "web0",
                .mac = "52:54:00:00:00:05",
                .network = *nic_network_from_json(example())}};
  const auto same = vm_spec_from_json(to_json(spec));
  ASSERT_TRUE(same) << same.error().text;
  EXPECT_EQ(*same, spec);
  json damaged = to_json(spec);
  damaged["nics"][0]["network"]["mtu"] = 5;
  EXPECT_FALSE(vm_spec_from_json(damaged));
}

TEST(NicNetwork, WhatIsNoneIsRefused) {
  const auto refusal = [](const char* key, json value) {
    json object = example();
    object[key] = std::move(value);
    const auto network = nic_network_from_json(object);
    return network ? std::string("accepted") : network.error().text;
  };
  EXPECT_THAT(refusal("addresses", json::array()), HasSubstr("needs an address"));
  EXPECT_THAT(refusal("addresses", "203.0.113.7/24"), HasSubstr("list"));
  EXPECT_THAT(refusal("addresses", json::array({"203.0.113.7"})), HasSubstr("length"));
  EXPECT_THAT(refusal("addresses", json::array({"203.0.113.7/24; reboot"})), HasSubstr("reboot"));
  EXPECT_THAT(refusal("addresses", json::array({7})), HasSubstr("length"));
  EXPECT_THAT(refusal("addresses", json(9, "203.0.113.7/24")), HasSubstr("at most 8"));
  for (const char* none :
       {"127.0.0.1/8", "224.0.0.1/24", "0.0.0.0/0", "fe80::7/64", "10.0.0.1/0"}) {
    EXPECT_THAT(refusal("addresses", json::array({none})), HasSubstr("no address")) << none;
  }
  EXPECT_THAT(refusal("gateways", json::array({"203.0.113.1", "203.0.113.2"})),
              HasSubstr("one gateway"));
  EXPECT_THAT(refusal("gateways", json::array({"nowhere"})), HasSubstr("nowhere"));
  EXPECT_THAT(refusal("resolvers", json(4, "192.0.2.53")), HasSubstr("at most 3"));
  for (const json& mtu : {json(100U), json(70000U), json("1500"), json(-1)}) {
    EXPECT_THAT(refusal("mtu", mtu), HasSubstr("MTU"));
  }
}

}  // namespace
}  // namespace godwit::qemu
