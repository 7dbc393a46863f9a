#include "translate/locator.hh"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "translate/plan_json.hh"
#include "translate/translate_testing.hh"

namespace godwit::translate {
namespace {

using ::testing::HasSubstr;

Ip ip(std::string_view text) { return parse_ip(text).value(); }

struct LocatorTest : ::testing::Test {
  Fabric fabric = small_fabric();
  DeviceIndex a = *fabric.find("ha4"), b = *fabric.find("hb4");
  Ip guest = ip("10.1.1.20"), guest6 = ip("fd01:1::20");

  std::set<Ip> take_all(DeviceIndex host, const Ip& address) {
    std::set<Ip> taken;
    while (taken.size() < 100) {
      const auto locator = free_locator(fabric, host, address, taken);
      if (!locator) break;
      EXPECT_TRUE(taken.insert(*locator).second) << locator->text();
    }
    return taken;
  }
};

TEST_F(LocatorTest, HostsOfOneEdgeTakeNoneThatTheOtherHas) {
  const auto of_a = take_all(a, guest), of_b = take_all(b, guest);
  EXPECT_EQ(of_a.size(), 32U);
  EXPECT_EQ(of_b.size(), 31U) << "10.1.4.255 is for all of the network";
  EXPECT_FALSE(of_b.contains(ip("10.1.4.255")));
  for (const Ip& each : of_a) EXPECT_FALSE(of_b.contains(each)) << each.text();
  for (const auto& all : {of_a, of_b}) {
    for (const Ip& each : all) {
      EXPECT_EQ(fabric.locators_of(a, guest).front().contains(each), true) << each.text();
    }
  }
  EXPECT_THAT(free_locator(fabric, a, guest, of_a).error().text, HasSubstr("in use"));
}

TEST_F(LocatorTest, IsOfTheGuestSFamily) {
  EXPECT_TRUE(free_locator(fabric, a, guest, {})->is4());
  const auto six = free_locator(fabric, a, guest6, {});
  if (fabric.locators_of(a, guest6).empty()) {
    EXPECT_THAT(six.error().text, HasSubstr("no device next to it"));
  } else {
    EXPECT_FALSE(six->is4());
  }
}

TEST_F(LocatorTest, ANetworkItselfIsNobodyS) {
  Fabric all = fabric;
  all.devices[*all.find("edge4")].locators = {parse_ip_prefix("10.1.4.0/24").value()};
  EXPECT_EQ(free_locator(all, a, guest, {})->text(), "10.1.4.1");
}

TEST(PlanJson, SaysWhatIsWrittenWhereAndWhatIsLeft) {
  const Fabric fabric = small_fabric();
  const DeviceIndex from = *fabric.find("ha1"), to = *fabric.find("ha3");
  const auto plan = plan_json(
      fabric,
      {.from = from, .to = to, .addresses = {{ip("10.1.1.20"), std::nullopt, ip("10.1.3.200")}}});
  EXPECT_EQ(plan["from"], "ha1");
  EXPECT_EQ(plan["of_devices"], fabric.devices.size());
  ASSERT_EQ(plan["phases"].size(), 5U);
  const auto& forwarded = plan["phases"][1];
  EXPECT_EQ(forwarded["phase"], "forwarded");
  ASSERT_EQ(forwarded["devices"].size(), 1U) << "the source's host only";
  EXPECT_EQ(forwarded["devices"][0]["device"], "ha1");
  EXPECT_EQ(forwarded["devices"][0]["add"][0]["becomes"], "10.1.3.200");
  std::size_t added = 0, removed = 0;
  for (const auto& phase : plan["phases"]) {
    for (const auto& device : phase["devices"]) {
      added += device["add"].size();
      removed += device["remove"].size();
    }
  }
  EXPECT_EQ(added - removed, plan["rules"].get<std::size_t>());
  const auto home =
      plan_json(fabric, {.from = to,
                         .to = from,
                         .addresses = {{ip("10.1.1.20"), ip("10.1.3.200"), ip("10.1.1.200")}}});
  EXPECT_EQ(home["rules"], 0);
}

}  // namespace
}  // namespace godwit::translate
