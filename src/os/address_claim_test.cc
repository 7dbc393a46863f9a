// What is claimed, and what is read back of it. In a network namespace of the test's own.
#include "os/address_claim.hh"

#include <gtest/gtest.h>
#include <unistd.h>

#include "os/netlink.hh"
#include "os/segment.hh"

namespace godwit::os {
namespace {

Ip ip(const char* text) { return *parse_ip(text); }

struct AddressClaimTest : testing::Test {
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "namespaces need root";
    netns.emplace(NetNamespace::create());
    netns->run([&] { netlink.emplace(); });
    netlink->add_veth("rack", "far");
    for (const char* each : {"10.1.0.1/24", "fd01::1/64"}) netlink->add_address("rack", each);
    for (const char* each : {"lo", "rack", "far"}) netlink->set_up(each);
  }
  Claims read() {
    return netns->run([] { return read_claims(); });
  }
  std::optional<NetNamespace> netns;
  std::optional<Netlink> netlink;
};

TEST_F(AddressClaimTest, WhatIsClaimedIsReadBackUntilItIsUnclaimed) {
  // Of others: neither is ours, alone or with the other.
  netlink->add_route("10.1.0.30/32", {}, "lo");
  netlink->add_proxy_neighbour("rack", "10.1.0.31");
  for (const char* each : {"10.1.0.20", "fd01::20"}) {
    netns->run([&] { claim("rack", ip(each)); });
    EXPECT_TRUE(read().has("rack", ip(each))) << each;
    EXPECT_FALSE(read().has("far", ip(each))) << each;
  }
  EXPECT_EQ(read().routes, (std::set{ip("10.1.0.20"), ip("fd01::20")}));
  netlink->remove_proxy_neighbour("rack", "10.1.0.20");
  EXPECT_FALSE(read().has("rack", ip("10.1.0.20")));
  for (const char* each : {"10.1.0.20", "fd01::20"}) {
    netns->run([&] { unclaim("rack", ip(each)); });
  }
  EXPECT_EQ(read().routes, std::set<Ip>{});
  EXPECT_TRUE(read().proxies.contains(ip("10.1.0.31")));
  EXPECT_FALSE(read().proxies.contains(ip("fd01::20")));
}

TEST_F(AddressClaimTest, WhereTheInterfaceIsGoneTheRouteGoes) {
  netns->run([&] { claim("rack", ip("10.1.0.20")); });
  netlink->remove_link("rack");
  netns->run([&] { unclaim("rack", ip("10.1.0.20")); });
  EXPECT_EQ(read().routes, std::set<Ip>{});
}

TEST_F(AddressClaimTest, TheHostSOwnAddressesAreKnown) {
  netns->run([] {
    for (const char* each : {"10.1.0.1", "fd01::1", "127.0.0.1"}) {
      EXPECT_TRUE(is_own_address(ip(each))) << each;
    }
    for (const char* each : {"10.1.0.2", "fd01::2"}) EXPECT_FALSE(is_own_address(ip(each))) << each;
  });
}

}  // namespace
}  // namespace godwit::os
