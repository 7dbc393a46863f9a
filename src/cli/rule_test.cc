// godwit rule plan, with the example's fabric.
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

#include "cli/fake_agent.hh"

namespace godwit::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct RulePlan : ::testing::Test {
  Ran plan(std::vector<std::string> more) {
    std::vector<std::string> arguments{"rule", "plan", fabric};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_cli("/nonexistent", std::move(arguments));
  }
  std::string fabric = GODWIT_SOURCE "/examples/fabrics/two-pods.yaml";
  TestDirectory directory;
};

TEST_F(RulePlan, ShowsWhatIsWrittenWhereAndWhen) {
  const Ran ran = plan({"--address", "10.1.1.20", "--from", "a1", "--to", "b2"});
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_EQ(ran.out, R"(staged: before the guest stands; refused by one, undone at all
  agg1   + depart 10.1.1.20 -> 10.1.2.193 (staged)
  agg2   + depart 10.1.1.20 -> 10.1.2.193 (staged)
  edge1  + depart 10.1.1.20 -> 10.1.2.193 (staged)
         + claim 10.1.1.20 (staged)
  edge2  + depart 10.1.1.20 -> 10.1.2.193 (staged)
  b2     + arrive 10.1.2.193 -> 10.1.1.20
         + claim 10.1.2.193
forwarded: with the commit, at the source's host first
  a1     + depart 10.1.1.20 -> 10.1.2.193
         + answer 10.1.1.20
flipped: then, in any order
  agg1   - depart 10.1.1.20 -> 10.1.2.193 (staged)
         + depart 10.1.1.20 -> 10.1.2.193
  agg2   - depart 10.1.1.20 -> 10.1.2.193 (staged)
         + depart 10.1.1.20 -> 10.1.2.193
  edge1  - depart 10.1.1.20 -> 10.1.2.193 (staged)
         - claim 10.1.1.20 (staged)
         + depart 10.1.1.20 -> 10.1.2.193
         + claim 10.1.1.20
  edge2  - depart 10.1.1.20 -> 10.1.2.193 (staged)
         + depart 10.1.1.20 -> 10.1.2.193
drained: when nothing comes to the old place any more
  a1     - depart 10.1.1.20 -> 10.1.2.193
         - answer 10.1.1.20
7 rules at 5 of 18 devices are left
)");
}

TEST_F(RulePlan, BackHomeNoRuleIsLeft) {
  const auto home = {"--address", "fd01:1::20",     "--from",         "c1",    "--to",
                     "a2",        "--from-locator", "fd01:3::ffff:7", "--json"};
  const Ran ran = plan({home.begin(), home.end()});
  EXPECT_EQ(ran.status, 0) << ran.err;
  const json told = json::parse(ran.out);
  EXPECT_EQ(told["rules"], 0);
  EXPECT_EQ(told["addresses"][0]["to_locator"], "fd01:1::ffff:1");
  std::vector<std::string> phases;
  for (const json& each : told["phases"]) phases.push_back(each["phase"]);
  EXPECT_THAT(phases, ElementsAre("staged", "forwarded", "flipped", "drained", "settled"));
  EXPECT_EQ(
      told["phases"][4]["devices"],
      json::array({{{"device", "a2"},
                    {"agent", "a2"},
                    {"tier", "host"},
                    {"add", json::array()},
                    {"remove",
                     {{{"kind", "arrive"}, {"match", "fd01:1::ffff:1"}, {"becomes", "fd01:1::20"}},
                      {{"kind", "claim"}, {"match", "fd01:1::ffff:1"}}}}}}));
}

TEST_F(RulePlan, TheFewestRulesWithDetours) {
  const Ran ran =
      plan({"--address", "10.1.1.20", "--from", "a1", "--to", "c2", "--detours", "--json"});
  EXPECT_EQ(json::parse(ran.out)["rules"], 4) << ran.out;
}

TEST_F(RulePlan, WhatCannotBeIsRefusedWithTheReason) {
  const auto refused = [&](std::vector<std::string> arguments, int status) {
    const Ran ran = plan(std::move(arguments));
    EXPECT_EQ(ran.status, status) << ran.err;
    EXPECT_EQ(ran.out, "");
    return ran.err;
  };
  EXPECT_THAT(refused({"--address", "10.1.1.20", "--from", "a1", "--to", "x9"}, 2),
              HasSubstr("the fabric has no host 'x9': it has a1, a2"));
  EXPECT_THAT(refused({"--address", "10.1.1.20", "--from", "a1", "--to", "a1"}, 2),
              HasSubstr("the guest is at host a1 already"));
  EXPECT_THAT(refused({"--address", "10.9.1.20", "--from", "a1", "--to", "b1"}, 3),
              HasSubstr("10.9.1.20 is of no network of the fabric"));
  EXPECT_THAT(refused({"--address", "10.1.2.20", "--from", "a1", "--to", "b1"}, 3),
              HasSubstr("is not at home at host a1"));
  EXPECT_THAT(
      refused({"--address", "10.1.1.20", "--from", "a1", "--to", "b1", "--locator", "10.1.2.7"}, 3),
      HasSubstr("10.1.2.7 is none of the locators at host b1"));
  EXPECT_THAT(refused({"--address", "ten", "--from", "a1", "--to", "b1"}, 2), HasSubstr("ten"));
  fabric = directory.path() / "wrong.yaml";
  std::ofstream(fabric) << "tiers: [edge]\ndevices:\n  e1:\n    tier: cellar\n    up: [e9]\n";
  const std::string told = refused({"--address", "10.1.1.20", "--from", "a1", "--to", "b1"}, 2);
  EXPECT_THAT(told, HasSubstr("wrong.yaml:4: device 'e1' is of no tier: one of edge"));
  EXPECT_THAT(told, HasSubstr("wrong.yaml:5: there is no device 'e9'"));
}

}  // namespace
}  // namespace godwit::cli
