// Moves with strategy endpoint, from both of their hosts: as they go, and with whatever may fail.
#include "agent/endpoint_testing.hh"
#include "os/nftables.hh"

namespace godwit::agent::endpoint_testing {
namespace {

using testing::HasSubstr;
using Alive = std::pair<std::size_t, std::size_t>;

const Ip kStranger = ip("10.99.0.9");  // no agent has it

struct EndpointLeadTest : EndpointTest {
  void SetUp() override {
    EndpointTest::SetUp();
    if (IsSkipped()) return;
    host("home").track({connection(kWeb, kPeer, 5000)});
    host("q1").track({seen_by_peer(connection(kWeb, kPeer, 5000))});
  }
  void look(Move& move) {
    host("f1").in([&] { move.lead().uplink_is_here(); });
  }
  bool is_direct(Move& move) {
    return until([&] { return move.lead().is_led() && move.lead().missing().empty(); });
  }
  json associations() { return host("q1").parts->associations.describe(); }
  json relays() { return host("home").parts->relays.describe(); }
  void refuse_once(const std::string& to, const std::string& what) {
    sessions.refuses = [this, to, what](const auto& host, const auto& method) {
      const bool is_meant = host == to && method == what;
      if (is_meant) sessions.refuses = [](auto&&...) { return std::nullopt; };
      return is_meant ? std::optional(Error{"no"}) : std::nullopt;
    };
  }
  void expect_undone(Move& move) {
    host("f1").in([&] { move.lead().undo(); });
    EXPECT_TRUE(until([&] { return move.lead().is_over(); }));
    settle();
    EXPECT_EQ(associations(), json::array());
    EXPECT_EQ(relays(), json::array());
    EXPECT_EQ(host("home").ports(), std::vector<std::string>{"web"});
    EXPECT_EQ(host("f1").ports(), std::vector<std::string>());
    EXPECT_EQ(host("f1").in([] { return os::connections_of({kWeb}).size(); }), 0U);
  }
};

TEST_F(EndpointLeadTest, WhatIsDirectNeedsNoRelay) {
  Move move = move_web();
  go(move);
  ASSERT_TRUE(is_direct(move));
  EXPECT_EQ(host("f1").tracked(kWeb, os::kInheritedMark).size(), 1U);
  EXPECT_EQ(host("q1").tracked(kPeer, os::kLabelledMark).size(), 1U);
  EXPECT_EQ(associations()[0]["host"], "f1");
  look(move);
  EXPECT_EQ(move.alive(), Alive(1, 0));
  EXPECT_TRUE(until([&] { return !move.described().contains("relay"); }));
  EXPECT_EQ(relays(), json::array());
  // It ends with its last connection.
  host("f1").in([&] { os::remove_connections(host("f1").tracked(kWeb, ~0U)); });
  look(move);
  EXPECT_TRUE(until([&] { return move.lead().is_over(); }));
  EXPECT_EQ(associations(), json::array());
  EXPECT_EQ(host("f1").ports(), std::vector<std::string>{"web"});
  EXPECT_EQ(host("f1").store->list("relocation connections").size(), 0U);
}

// ---- staging ----

TEST_F(EndpointLeadTest, ASourceThatRefusesIsTheReason) {
  refuse_once("home", "endpoint.stage");
  Move move = move_web();
  move.stage();
  ASSERT_TRUE(until([&] { return !move.lead().refusal().empty(); }));
  EXPECT_EQ(move.lead().refusal(), "no");
  expect_undone(move);
}

TEST_F(EndpointLeadTest, ASourceThatIsAwayStagesNothing) {
  sessions.away = {"home"};
  Move move = move_web();
  move.stage();
  ASSERT_TRUE(until([&] { return !move.lead().refusal().empty(); }));
  EXPECT_THAT(move.lead().refusal(), HasSubstr("no session"));
  host("f1").in([&] { move.lead().undo(); });
  settle();
  EXPECT_FALSE(move.lead().is_over());  // what it may have agreed is to be taken back
  sessions.away.clear();
  EXPECT_TRUE(until([&] { return move.lead().is_over(); }));
}

TEST_F(EndpointLeadTest, AnUplinkThatIsNotThereIsNotStaged) {
  Move move = move_web();
  move.record.port = PortId{};
  move.stage();
  ASSERT_TRUE(until([&] { return !move.lead().refusal().empty(); }));
  EXPECT_THAT(move.lead().refusal(), HasSubstr("no such guest's uplink"));
}

TEST_F(EndpointLeadTest, WhatWasStagedIsUndone) {
  Move move = move_web();
  move.stage();
  expect_staged(move);
  EXPECT_EQ(associations().size(), 1U);
  EXPECT_EQ(relays().size(), 1U);
  expect_undone(move);
}

// Tables and timeouts of a host's first guest are not made while its packets wait.
TEST_F(EndpointLeadTest, WhatTakesTimeIsThereBeforeItRuns) {
  const auto tracked = [&] {
    return host("f1").in(
        [] { return os::query_nftables("list set inet godwit_track guests4").value_or(""); });
  };
  const auto has_rules = [&] { return host("f1").in([] { return *os::has_moved_rules(); }); };
  EXPECT_FALSE(has_rules());
  Move move = move_web();
  move.stage();
  expect_staged(move);
  EXPECT_TRUE(has_rules());
  EXPECT_THAT(tracked(), HasSubstr(kWeb.text()));
  expect_undone(move);
  EXPECT_FALSE(has_rules());
}

TEST_F(EndpointLeadTest, WhoDoesNotAgreeIsRelayed) {
  refuse_once("q1", "flow.stage");
  Move move = move_web();
  go(move);
  EXPECT_TRUE(is_direct(move));
  EXPECT_EQ(move.alive(), Alive(0, 1));
  EXPECT_TRUE(relays()[0]["forwards"]);
  EXPECT_TRUE(move.described().contains("relay"));
}

// ---- once it runs here ----

TEST_F(EndpointLeadTest, ASourceThatDiesThenIsNotWaitedFor) {
  Move move = move_web();
  move.stage();
  expect_staged(move);
  sessions.away = {"home"};
  move.run();
  settle();
  host("f1").in([&] { move.lead().abandon_source(); });
  ASSERT_TRUE(is_direct(move));
  EXPECT_EQ(host("f1").tracked(kWeb, os::kInheritedMark).size(), 1U);
  EXPECT_EQ(associations()[0]["direct"], true);
}

TEST_F(EndpointLeadTest, AConnectionThatBeganMeanwhileGoesAlong) {
  Move move = move_web();
  move.stage();
  expect_staged(move);
  move.run();
  ASSERT_TRUE(until([&] { return move.lead().is_forwarded(); }));
  host("home").track({connection(kWeb, kPeer, 5001)});
  move.stand();
  move.arrive();
  ASSERT_TRUE(until([&] { return host("q1").tracked(kPeer, os::kLabelledMark).size() == 2; }));
  ASSERT_TRUE(is_direct(move));
  look(move);
  EXPECT_EQ(move.alive(), Alive(2, 0));
}

TEST_F(EndpointLeadTest, WhatHasEndedMeanwhileIsNotWaitedFor) {
  host("home").track({connection(kWeb, kPeer, 5001)});
  Move move = move_web();
  move.stage();
  expect_staged(move);
  EXPECT_EQ(host("f1").tracked(kWeb, os::kInheritedMark).size(), 2U);
  host("home").in([&] { os::remove_connections({connection(kWeb, kPeer, 5001)}); });
  move.run();
  ASSERT_TRUE(until([&] { return move.lead().is_forwarded(); }));
  move.stand();
  EXPECT_EQ(host("f1").tracked(kWeb, os::kInheritedMark).size(), 1U);
}

TEST_F(EndpointLeadTest, AnUpdateThatIsRefusedIsSaidAgain) {
  refuse_once("q1", "flow.update");
  Move move = move_web();
  go(move);
  ASSERT_TRUE(until([&] { return move.lead().is_led(); }));
  EXPECT_EQ(move.lead().missing(), "host q1");  // it is served by the relay meanwhile
  EXPECT_EQ(move.alive(), Alive(0, 1));
  EXPECT_TRUE(is_direct(move));
  look(move);
  EXPECT_EQ(move.alive(), Alive(1, 0));
}

TEST_F(EndpointLeadTest, AnUpdateWhoseAnswerIsLostIsSaidAgain) {
  bool is_lost = false;
  sessions.loses_answer = [&](const auto&, const auto& method) {
    const bool is_meant = method == "flow.update" && !std::exchange(is_lost, true);
    return is_meant ? std::optional(Error{"timeout"}) : std::nullopt;
  };
  Move move = move_web();
  go(move);
  EXPECT_TRUE(is_direct(move));
  EXPECT_EQ(asked("flow.update q1"), 2U);
  EXPECT_EQ(associations()[0]["host"], "f1");
}

// Before what takes time here: its packets come by the direct way that much earlier.
TEST_F(EndpointLeadTest, WhoStaysIsToldFirst) {
  Move move = move_web();
  move.stage();
  expect_staged(move);
  host("f1").in([&] { move.lead().guest_runs(); });
  EXPECT_EQ(sessions.asked.back(), "flow.update q1");
  EXPECT_FALSE(move.lead().is_forwarded());
  ASSERT_TRUE(until([&] { return associations()[0]["direct"] == true; }));
  move.run();
  move.stand();
  move.arrive();
  ASSERT_TRUE(is_direct(move));
  EXPECT_EQ(asked("flow.update q1"), 1U);
  look(move);
  EXPECT_EQ(move.alive(), Alive(1, 0));
}

// Else what comes from where it goes would be a stranger's to the guest, who resets it: what is
// agreed about that comes with the answer of the source, whose uplink stands by then.
TEST_F(EndpointLeadTest, WhoLeavesIsToldWhenTheKernelHereKnows) {
  Move move = move_web();
  move.stage();
  expect_staged(move);
  Move other(host("q1"), host("f2"), peer, "peer", kPeer);
  other.stage();
  expect_staged(other);
  move.run();
  ASSERT_TRUE(until([&] { return asked("flow.update q1") == 1; }));
  settle();
  EXPECT_TRUE(move.lead().is_forwarded());
  EXPECT_FALSE(move.lead().is_led());
  EXPECT_EQ(associations()[0]["direct"], false);
  move.stand();
  ASSERT_TRUE(is_direct(move));
  EXPECT_EQ(associations()[0]["direct"], true);
  EXPECT_EQ(asked("flow.update q1"), 2U);
  host("f2").in([&] { other.lead().undo(); });
  EXPECT_TRUE(until([&] { return other.lead().is_over(); }));
}

TEST_F(EndpointLeadTest, WhoIsAwayItselfIsToldWhenTheKernelHereKnows) {
  Move other(host("q1"), host("f2"), peer, "peer", kPeer);
  go(other);
  ASSERT_TRUE(until([&] { return other.lead().is_led() && other.lead().missing().empty(); }));
  Move move = move_web();
  move.stage();
  expect_staged(move);
  move.run();
  ASSERT_TRUE(until([&] { return asked("flow.update f2") == 1; }));
  settle();
  EXPECT_FALSE(move.lead().is_led());
  move.stand();
  move.arrive();
  ASSERT_TRUE(is_direct(move));
  look(move);
  EXPECT_EQ(move.alive(), Alive(1, 0));
}

// An older agent takes what it is told.
TEST_F(EndpointLeadTest, WhoDoesNotKnowIfItIsEarlyIsToldLater) {
  sessions.says = [](const auto&, const auto& method, json& answer) {
    if (method == "flow.stage") answer.erase("knows_early");
  };
  Move move = move_web();
  move.stage();
  expect_staged(move);
  move.run();
  settle();
  EXPECT_TRUE(move.lead().is_forwarded());
  EXPECT_EQ(asked("flow.update q1"), 0U);
  move.stand();
  ASSERT_TRUE(until([&] { return move.lead().is_led(); }));
  EXPECT_EQ(asked("flow.update q1"), 1U);
}

// It was told, and its host's agent ends with nothing of that kept.
TEST_F(EndpointLeadTest, WhoWasToldFirstIsToldAgainByTheNextAgent) {
  Move move = move_web();
  move.stage();
  expect_staged(move);
  host("f1").in([&] { move.lead().guest_runs(); });
  ASSERT_TRUE(until([&] { return associations()[0]["direct"] == true; }));
  move.restart();
  EXPECT_TRUE(move.lead().is_staged());
  move.run();
  move.stand();
  move.arrive();
  ASSERT_TRUE(is_direct(move));
  look(move);
  EXPECT_EQ(move.alive(), Alive(1, 0));
}

// Nobody's guest, so that it is where it was.
TEST_F(EndpointLeadTest, WhoCannotMoveIsToldAtOnce) {
  host("x1").in([] { os::Netlink().add_address("rack", kStranger.text() + "/24"); });
  host("home").track({connection(kWeb, kStranger, 6000)});
  host("x1").track({seen_by_peer(connection(kWeb, kStranger, 6000))});
  Move move = move_web();
  move.stage();
  expect_staged(move);
  move.run();
  ASSERT_TRUE(until([&] { return host("x1").tracked(kStranger, os::kLabelledMark).size() == 1; }));
  settle();
  EXPECT_EQ(asked("flow.update x1"), 1U);
  move.stand();
  move.arrive();
  ASSERT_TRUE(is_direct(move));
  EXPECT_EQ(asked("flow.update x1"), 1U);
  look(move);
  EXPECT_EQ(move.alive(), Alive(2, 0));
}

TEST_F(EndpointLeadTest, ARelayWhoseTimeIsOverRefuses) {
  host("home").track({connection(kWeb, kStranger, 6000)});
  Move move = move_web(0);
  go(move);
  EXPECT_EQ(move.alive(), Alive(0, 2));  // at its first look
  ASSERT_TRUE(until([&] { return !move.described().contains("relay"); }));
  EXPECT_EQ(move.described()["reset"], 2U);
  ASSERT_EQ(relays().size(), 1U);  // it refuses for a while
  EXPECT_FALSE(relays()[0]["forwards"]);
  settle();
  EXPECT_EQ(host("f1").ports(), std::vector<std::string>{"web"});
}

// ---- agents that end ----

TEST_F(EndpointLeadTest, AMoveThatWasStagedIsSoAfterARestart) {
  Move move = move_web();
  move.stage();
  expect_staged(move);
  move.restart();
  EXPECT_TRUE(move.lead().is_staged());
  host("home").in([&] { host("home").start(); });
  host("q1").in([&] { host("q1").start(); });
  move.run();
  move.stand();
  ASSERT_TRUE(is_direct(move));
  EXPECT_EQ(associations()[0]["host"], "f1");
}

TEST_F(EndpointLeadTest, WhatWasStagedIsUndoneAfterARestart) {
  Move move = move_web();
  move.stage();
  expect_staged(move);
  move.restart();
  expect_undone(move);
}

TEST_F(EndpointLeadTest, WhatWasToldAndNotKeptIsToldAgain) {
  Move move = move_web();
  move.stage();
  expect_staged(move);
  move.run();
  ASSERT_TRUE(until([&] { return move.lead().is_forwarded(); }));
  move.stand();
  move.restart();
  EXPECT_FALSE(move.lead().is_forwarded());
  move.run();
  ASSERT_TRUE(until([&] { return move.lead().is_forwarded(); }));
  move.stand();
  move.arrive();
  EXPECT_TRUE(is_direct(move));
  look(move);
  EXPECT_EQ(move.alive(), Alive(1, 0));
}

TEST_F(EndpointLeadTest, WhatItServesItServesAfterARestart) {
  host("home").track({connection(kWeb, kStranger, 6000)});
  Move move = move_web();
  go(move);
  ASSERT_TRUE(is_direct(move));
  look(move);
  for (const char* each : {"home", "q1"}) host(each).in([&] { host(each).start(); });
  move.restart();
  EXPECT_TRUE(is_direct(move));
  look(move);
  EXPECT_EQ(move.alive(), Alive(1, 1));
  ASSERT_EQ(relays().size(), 1U);
  EXPECT_TRUE(relays()[0]["forwards"]);
  const auto rules = host("f1").in([] { return os::has_moved_rules(); });
  EXPECT_TRUE(rules.value_or(false));
}

}  // namespace
}  // namespace godwit::agent::endpoint_testing
