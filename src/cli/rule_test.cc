// godwit rule plan, with the example's fabric; ls, verify and prune, with scripted agents.
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
forwarded: when it runs there, at the source's host first
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

// ---- of devices ----

const json kDepart = {{"kind", "depart"}, {"match", "10.1.1.20"}, {"becomes", "10.1.4.200"}};
const json kClaim = {{"kind", "claim"}, {"match", "10.1.1.20"}, {"staged", true}};
const json kNobodySilent = json::array();
const json kCoreIsSilent = json::array({{{"host", "core1"}, {"reason", "no session"}}});

json of_guest(json rule, const std::string& host, const std::string& name, char id) {
  rule.update({{"guest", std::string(32, id)},
               {"name", name},
               {"epoch", 3},
               {"phase", "flipped"},
               {"host", host}});
  return rule;
}

json verdict(const std::string& host) {
  return {{"host", host},
          {"ok", true},
          {"missing", json::array()},
          {"claims_missing", json::array()},
          {"foreign", json::array()},
          {"forwarding_off", json::array()}};
}

std::vector<std::string> rule_lines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

struct RuleOfDevices : ::testing::Test {
  Ran rule(std::vector<std::string> arguments) {
    agent.start();
    arguments.insert(arguments.begin(), "rule");
    return run_cli(agent.socket(), std::move(arguments));
  }
  FakeAgent agent;
};

TEST_F(RuleOfDevices, AreListed) {
  json rule = of_guest(kDepart, "agg1", "web1", 'a');
  rule["packets"] = 17;
  agent.answer("GET /v1/rules", json::array({rule, of_guest(kClaim, "agg1", "web1", 'a')}));
  EXPECT_EQ(
      rule_lines(this->rule({"ls"}).out),
      (std::vector<std::string>{
          "ID        GUEST  EPOCH  PHASE    KIND    ADDRESS    BECOMES     STATE   PACKETS",
          "aaaaaaaa  web1       3  flipped  depart  10.1.1.20  10.1.4.200  active       17",
          "aaaaaaaa  web1       3  flipped  claim   10.1.1.20  -           staged        -"}));
}

TEST_F(RuleOfDevices, OfAllAreListedAndWhoWasNotAskedIsNamed) {
  agent.answer("GET /v1/fleet-rules",
               {{"rules", {of_guest(kDepart, "agg1", "web1", 'a')}}, {"silent", kCoreIsSilent}});
  const Ran ran = rule({"ls", "--all"});
  EXPECT_EQ(ran.status, 0);
  EXPECT_THAT(ran.out, HasSubstr("agg1    aaaaaaaa  web1"));
  EXPECT_EQ(ran.err, "device core1 was not asked: no session\n");
}

TEST_F(RuleOfDevices, ThatAreAllRightAreVerified) {
  agent.answer("GET /v1/rules/verify",
               {{"hosts", {verdict("agg1"), verdict("edge1")}}, {"silent", kNobodySilent}});
  const Ran ran = rule({"verify"});
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_EQ(ran.out, "all rules of 2 devices are as they shall be\n");
}

TEST_F(RuleOfDevices, ThatDifferAreNamedWithTheRemedy) {
  json agg1 = verdict("agg1"), edge1 = verdict("edge1");
  agg1["ok"] = edge1["ok"] = false;
  agg1["missing"].push_back(kDepart);
  agg1["forwarding_off"].push_back("IPv4");
  edge1["foreign"].push_back(kDepart);
  edge1["claims_missing"].push_back({{"kind", "claim"}, {"match", "10.1.1.20"}});
  agent.answer("GET /v1/rules/verify",
               {{"hosts", {agg1, edge1, verdict("edge2")}}, {"silent", kNobodySilent}});
  const Ran ran = rule({"verify"});
  EXPECT_EQ(ran.status, 1);
  EXPECT_EQ(ran.out, R"(agg1: missing: depart 10.1.1.20 -> 10.1.4.200
agg1: IPv4 packets are not forwarded
edge1: missing: claim 10.1.1.20
edge1: foreign: depart 10.1.1.20 -> 10.1.4.200
)");
  EXPECT_THAT(ran.err, HasSubstr("2 of 3 devices differ"));
  EXPECT_THAT(ran.err, HasSubstr("`godwit rule prune`"));
}

TEST_F(RuleOfDevices, OfASilentOneAreNotVerified) {
  agent.answer("GET /v1/rules/verify", {{"hosts", {verdict("agg1")}}, {"silent", kCoreIsSilent}});
  const Ran ran = rule({"verify", "--json"});
  EXPECT_EQ(ran.status, 1);
  EXPECT_EQ(json::parse(ran.out)["silent"], kCoreIsSilent);
}

TEST_F(RuleOfDevices, ArePrunedAndTold) {
  agent.answer("POST /v1/rules/prune",
               {{"hosts", {{{"host", "agg1"}, {"removed", {kDepart}}, {"written", {kClaim}}}}},
                {"silent", kNobodySilent}});
  const Ran ran = rule({"prune"});
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_EQ(ran.out, "agg1  - depart 10.1.1.20 -> 10.1.4.200\nagg1  + claim 10.1.1.20 (staged)\n");
  EXPECT_EQ(agent.body_of("POST /v1/rules/prune"), json::object());
}

TEST_F(RuleOfDevices, WouldBePruned) {
  json agg1 = verdict("agg1");
  agg1["claims_missing"].push_back(kClaim);
  agg1["foreign"].push_back(kDepart);
  agent.answer("GET /v1/rules/verify", {{"hosts", {agg1}}, {"silent", kNobodySilent}});
  EXPECT_EQ(rule({"prune", "--dry-run"}).out,
            "agg1  - depart 10.1.1.20 -> 10.1.4.200\nagg1  + claim 10.1.1.20 (staged)\n");
}

TEST_F(RuleOfDevices, OfAGuestArePrunedByItsNameOrId) {
  agent.answer("GET /v1/fleet-rules",
               {{"rules",
                 {of_guest(kDepart, "agg1", "web1", 'a'), of_guest(kClaim, "edge1", "web1", 'a'),
                  of_guest(kClaim, "edge1", "mail", 'b')}},
                {"silent", kNobodySilent}});
  agent.answer("POST /v1/rules/prune", {{"hosts", {{{"host", "agg1"}, {"removed", {kDepart}}}}},
                                        {"silent", kCoreIsSilent}});
  const Ran dry = rule({"prune", "--guest", "web1", "--dry-run"});
  EXPECT_EQ(dry.out, "agg1  - depart 10.1.1.20 -> 10.1.4.200\nedge1  - claim 10.1.1.20 (staged)\n");
  const auto again = [&](const std::string& guest) {
    return run_cli(agent.socket(), {"rule", "prune", "--guest", guest});
  };
  const Ran none = again("db");
  EXPECT_EQ(none.status, 1);
  EXPECT_THAT(none.err, HasSubstr("no device has rules of guest 'db'"));
  const Ran ran = again("aaaa");
  EXPECT_EQ(ran.status, 1) << "one may still have some";
  EXPECT_EQ(ran.err, "device core1 was not asked: no session\n");
  EXPECT_EQ(agent.body_of("POST /v1/rules/prune"), (json{{"guest", std::string(32, 'a')}}));
}

}  // namespace
}  // namespace godwit::cli
