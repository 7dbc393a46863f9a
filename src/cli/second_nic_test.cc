// Which NIC a vm goes by with strategy secondary-nic: one that it has already, or one that is made.
#include <gmock/gmock.h>

#include "cli/fake_agent.hh"

namespace godwit::cli {
namespace {

using ::testing::HasSubstr;

// It has been at f1, and is there: web0 is behind web-net, web-for-f1 behind web-at-f1.
struct SecondNicTest : ::testing::Test {
  SecondNicTest() {
    agent.answer("GET /v1/hosts", {{{"name", "f1"}}, {{"name", "h1"}}, {{"name", "y1"}}});
    agent.answer(
        "GET /v1/ports",
        {{{"name", "web0"}, {"vm", "web"}, {"wire", "w1"}},
         {{"name", "web-net"}, {"wire", "w1"}, {"guest_addresses", {{{"address", "10.66.1.20"}}}}},
         {{"name", "web-for-f1"}, {"vm", "web"}, {"wire", "w2"}},
         {{"name", "web-at-f1"},
          {"wire", "w2"},
          {"guest_addresses", {{{"address", "10.66.2.200"}}}}},
         {{"name", "other"}}});
    vm = {{"name", "web"},
          {"guest_agent", true},
          {"nic_slots", 1},
          {"nics", {{{"port", "web0"}}, {{"port", "web-for-f1"}, {"slot", 0}}}}};
  }
  // `at_home`: the uplink that has its own address there again; empty: none.
  Ran planned(const std::string& at_home, const std::string& to,
              const std::vector<std::string>& options = {}) {
    json network = json::array();
    for (const auto& [port, address] :
         {std::pair{"web-net", "10.66.1.20"}, std::pair{"web-at-f1", "10.66.2.200"}}) {
      network.push_back(
          {{"port", port}, {"strategy", "endpoint"}, {"addresses", {{{"address", address}}}}});
      if (port != at_home) network.back()["addresses"][0]["new_address"] = "10.66.9.9";
    }
    agent.answer("GET /v1/vms/web", vm);
    agent.answer("POST /v1/migrations", {{"ok", true}, {"network", network}});
    agent.start();
    std::vector<std::string> words = {"migrate",    "web",           "--to",     to,
                                      "--strategy", "secondary-nic", "--dry-run"};
    words.insert(words.end(), options.begin(), options.end());
    return run_cli(agent.socket(), words);
  }

  FakeAgent agent;
  json vm;
};

TEST_F(SecondNicTest, AtHomeTheFirstIsTheWay) {
  const Ran ran = planned("web-net", "h1");
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("web0 is at home at host h1"));
  EXPECT_EQ(agent.body_of("POST /v1/migrations")["dry_run"], true);
}

TEST_F(SecondNicTest, WhatIsAtHomeIsNotConfigured) {
  const Ran ran = planned("web-net", "h1", {"--resolver", "10.0.0.53"});
  EXPECT_EQ(ran.status, 3);
  EXPECT_THAT(ran.err, HasSubstr("without --configure and --resolver"));
}

TEST_F(SecondNicTest, WhereItHasBeenItHasOneOfThatNetwork) {
  const Ran ran = planned("web-at-f1", "f1");
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("web-for-f1 is at home at host f1"));
}

TEST_F(SecondNicTest, ElsewhereOneIsPluggedIn) {
  vm["nic_slots"] = 2;
  const Ran ran = planned("", "y1");
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("web-for-y1 is plugged into the vm"));
  for (const auto& asked : agent.asked()) {
    EXPECT_TRUE(asked.what.starts_with("GET ") || asked.what == "POST /v1/migrations")
        << asked.what;
  }
}

TEST_F(SecondNicTest, ForWhichASlotIsNeeded) {
  const Ran ran = planned("", "y1");
  EXPECT_EQ(ran.status, 3);
  EXPECT_THAT(ran.err, HasSubstr("godwit vm nic rm web web-for-f1"));
  EXPECT_THAT(ran.err, HasSubstr("--strategy endpoint"));
}

}  // namespace
}  // namespace godwit::cli
