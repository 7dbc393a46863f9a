// Asking a fleet of scripted peers: who answers, who refuses, who is away.
#include "agent/fleet_rules.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace godwit::agent {
namespace {

using nlohmann::json;
using testing::HasSubstr;

struct ScriptedPeers final : Peers {
  const std::string& self() const override { return own; }
  bool is_up(const std::string& peer) const override { return answers.contains(peer); }
  std::vector<std::string> up() const override {
    std::vector<std::string> names;
    for (const auto& [name, answer] : answers) names.push_back(name);
    return names;
  }
  Nanoseconds rtt(const std::string&) const override { return {}; }
  unsigned protocol(const std::string&) const override { return 0; }
  void request(const std::string& peer, const std::string& method, const json&, Reply reply,
               Nanoseconds) override {
    asked.push_back(peer + " " + method);
    waiting.emplace_back(peer, std::move(reply));
  }
  Result<> push(const std::string&, const std::string&, BytesView) override { return {}; }
  void open_lane(const std::string&, LaneReady) override {}

  std::string own = "edge1";
  std::map<std::string, Result<json>> answers;
  std::vector<std::string> asked;
  std::vector<std::pair<std::string, Reply>> waiting;
};

struct FleetRulesTest : testing::Test {
  void answer(std::size_t which) {
    auto& [peer, reply] = peers.waiting.at(which);
    reply(peers.answers.at(peer));
  }
  os::Loop loop;
  Config config;
  std::unique_ptr<store::Store> store = store::make_memory_store();
  Events events;
  DeviceDriver own{loop, config, *store, events};
  ScriptedPeers peers;
  FleetRules rules{own, peers, {"a1", "agg1", "core1", "edge1"}};
  std::vector<json> told;
  FleetRules::Done done = [this](const json& answer) { told.push_back(answer); };
};

TEST_F(FleetRulesTest, WhoDoesNotAnswerIsNamed) {
  const json rule = {{"guest", "g"}, {"kind", "claim"}, {"match", "10.1.1.20"}};
  peers.answers.emplace("a1", json{{"rules", {rule}}});
  peers.answers.emplace("agg1", fail("it has not answered within 5 s"));
  rules.list(done);
  EXPECT_EQ(peers.asked, (std::vector<std::string>{"a1 rule.list", "agg1 rule.list"}));
  answer(1);
  EXPECT_TRUE(told.empty()) << "before all have answered";
  answer(0);
  ASSERT_EQ(told.size(), 1U);
  json expected = rule;
  expected["host"] = "a1";
  EXPECT_EQ(told[0]["rules"], json::array({expected}));
  EXPECT_EQ(told[0]["silent"][0],
            (json{{"host", "agg1"}, {"reason", "it has not answered within 5 s"}}));
  EXPECT_EQ(told[0]["silent"][1]["host"], "core1");
  EXPECT_THAT(told[0]["silent"][1]["reason"], HasSubstr("no session with host core1"));
  EXPECT_EQ(told[0]["silent"].size(), 2U);
}

TEST_F(FleetRulesTest, AGuestIsForgottenByAll) {
  peers.answers.emplace("a1", json{{"removed", json::array()}});
  rules.forget("g", done);
  answer(0);
  ASSERT_EQ(told.size(), 1U);
  EXPECT_EQ(told[0]["hosts"].size(), 2U) << "and by this one";
  EXPECT_EQ(peers.asked, std::vector<std::string>{"a1 rule.forget"});
}

}  // namespace
}  // namespace godwit::agent
