#include "topology/pool.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "topology/desired.hh"
#include "topology/plan.hh"

namespace godwit::topology {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

Pool acme() {
  return {.name = "acme",
          .tenant = "blue",
          .sites = {"west", "east", "north"},
          .subnet = parse_ip_prefix("10.7.0.0/24").value()};
}

// What would be there if all of its steps were taken.
Actual built(const Pool& pool) {
  Actual actual;
  for (const std::string& site : pool.sites) {
    actual.hosts.push_back({.name = site, .site = site, .is_up = true});
  }
  const Desired desired = parse(to_file(pool), "").value();
  for (const WantedThing& each : desired.components) {
    json shown = each.settings;
    shown["name"] = each.name;
    actual.components.push_back({.host = each.place,
                                 .name = each.name,
                                 .tenant = each.tenant,
                                 .topology = desired.name,
                                 .shown = shown});
  }
  return actual;
}

TEST(Pool, IsASwitchAtEachSiteWithAFullMesh) {
  const Desired desired = parse(to_file(acme()), "").value();
  EXPECT_EQ(desired.name, "pool-acme");
  EXPECT_EQ(desired.tenant, "blue");
  EXPECT_EQ(desired.components.size(), 4u);
  EXPECT_EQ(desired.wires.size(), 3u + 1u);
  const json file = to_file(acme());
  EXPECT_EQ(file["components"]["acme-east"]["ports"],
            (json{{"to-north", {{"stretched", true}}}, {"to-west", {{"stretched", true}}}}));
  EXPECT_TRUE(file["components"]["acme-west"]["ports"].contains("dhcp")) << "the first";
  const json& dhcp = file["components"]["acme-dhcp"];
  EXPECT_EQ(dhcp["address"], "10.7.0.2/24");
  EXPECT_EQ(dhcp["networks"][0]["range"], "10.7.0.10-10.7.0.254");
  Pool plain = acme();
  plain.subnet.reset();
  EXPECT_EQ(to_file(plain)["components"].size(), 3u);
}

TEST(Pool, IsFoundAsItWasMade) {
  Pool expected = acme();
  expected.sites = {"west", "east", "north"};  // the DHCP server's first, then by name
  EXPECT_THAT(pools(built(acme())), ElementsAre(expected));
  EXPECT_TRUE(pools(Actual{}).empty());
}

TEST(Pool, ASiteMoreTouchesNoOther) {
  Pool fewer = acme();
  fewer.sites = {"west", "east"};
  Actual actual = built(fewer);
  actual.hosts.push_back({.name = "north", .site = "north", .is_up = true});
  const Plan steps = plan(parse(to_file(acme()), "").value(), actual);
  EXPECT_TRUE(steps.problems.empty());
  for (const Step& step : steps.steps) {
    EXPECT_GE(step.phase, Phase::make) << step.what << ": nothing is cut or removed";
  }
}

TEST(Pool, SitesChange) {
  const std::vector<std::string> both{"east", "west"};
  EXPECT_EQ(changed_sites(both, "north"), (std::vector<std::string>{"north"}));
  EXPECT_EQ(changed_sites(both, "+north"), (std::vector<std::string>{"east", "west", "north"}));
  EXPECT_EQ(changed_sites(both, "+east"), both) << "it is there";
  EXPECT_EQ(changed_sites(both, "-east,+north"), (std::vector<std::string>{"west", "north"}));
  EXPECT_THAT(changed_sites(both, "-north").error().text, HasSubstr("not at north"));
  EXPECT_THAT(changed_sites(both, "east,+north").error().text, HasSubstr("neither all"));
}

TEST(Pool, RefusesWhatCannotBe) {
  const auto refusal = [](auto change) {
    Pool pool = acme();
    change(pool);
    const auto good = check(pool);
    return good ? std::string() : good.error().text;
  };
  EXPECT_EQ(refusal([](Pool&) {}), "");
  EXPECT_THAT(refusal([](Pool& p) { p.name = "A"; }), HasSubstr("no name"));
  EXPECT_THAT(refusal([](Pool& p) { p.sites.clear(); }), HasSubstr("a site at least"));
  EXPECT_THAT(refusal([](Pool& p) { p.sites.push_back("east"); }), HasSubstr("twice"));
  EXPECT_THAT(refusal([](Pool& p) { p.sites[0] = "we st"; }), HasSubstr("no site"));
  for (const char* subnet : {"10.7.0.1/24", "10.7.0.0/30", "10.0.0.0/8", "fd00::/64"}) {
    EXPECT_THAT(refusal([&](Pool& p) { p.subnet = parse_ip_prefix(subnet).value(); }),
                HasSubstr("no IPv4 subnet"));
  }
}

}  // namespace
}  // namespace godwit::topology
