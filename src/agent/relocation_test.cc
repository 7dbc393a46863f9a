// A guest's uplink, from both of its hosts (strategy endpoint): it is held where the guest goes
// before that stands, and let go of when the move is off.
#include <gmock/gmock.h>

#include <cstdlib>
#include <fstream>

#include "agent/endpoint_testing.hh"

namespace godwit::agent::endpoint_testing {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::Not;

struct RelocationTest : EndpointTest {
  void stage(Epoch epoch = 7) {
    const json uplink =
        host("home").in([&] { return host("home").network.describe_nic(web); }).value();
    staged.reset();
    host("f1").in([&] {
      f1().stage(json::array({uplink}), "home", epoch, {.strategy = Strategy::endpoint},
                 [this](Result<json> told) { staged = std::move(told); });
    });
  }
  void expect_staged(Epoch epoch = 7) {
    stage(epoch);
    ASSERT_TRUE(until([&] { return staged.has_value(); }));
    ASSERT_TRUE(*staged) << staged->error().text;
  }
  void undo() {
    host("f1").in([&] { f1().undo({web}); });
  }
  // The source hands the guest over, and it stands there no more.
  void leave(Epoch epoch = 7) {
    host("home").in([&] { host("home").relocations->leave({web}, "f1", epoch); });
    ASSERT_TRUE(until([&] { return asked("uplink.stands f1") > 0; }));
  }
  // By which interface what is for the guest leaves its home.
  std::string way() {
    return host("home").in([&] {
      std::ifstream routes("/proc/thread-self/net/route");
      for (std::string line; std::getline(routes, line);) {
        if (line.contains("1401420A")) return line.substr(0, line.find('\t'));  // kWeb
      }
      return std::string();
    });
  }
  bool shows_at_f1(const std::string& command, const std::string& text) {
    return host("f1").in(
        [&] { return std::system((command + " 2>&1 | grep -qF '" + text + "'").c_str()) == 0; });
  }
  wire::PortState state_at_home() {
    std::optional<wire::PortState> state;
    host("home").wires.stats([&](const WireThreads::Stats& stats) {
      for (const auto& port : stats.ports) {
        if (port.id.port == web) state = port.state;
      }
    });
    EXPECT_TRUE(until([&] { return state.has_value(); }));
    return state.value_or(wire::PortState{});
  }
  void follow() {
    sessions.asked.clear();
    host("f1").in([&] { f1().follow({web}, [](auto&&) {}); });
  }
  bool is_here() {
    return until([&] { return host("f1").network.guest_uplink(web) != nullptr; });
  }
  bool is_held() { return host("f1").network.is_held(web); }
  bool is_over() {
    return until([&] { return f1().describe().empty(); });
  }
  bool has_interface() {
    return host("f1").in([] { return os::Netlink().find("web").has_value(); });
  }
  Relocations& f1() { return *host("f1").relocations; }

  std::optional<Result<json>> staged;
};

TEST_F(RelocationTest, AnUplinkIsHeldBeforeItsGuestStands) {
  expect_staged();
  EXPECT_TRUE(is_held());
  EXPECT_EQ(f1().describe()[0]["uplink"], "held");
  EXPECT_FALSE(host("f1").network.guests().contains(kWeb));  // nothing comes for it yet
  follow();
  ASSERT_TRUE(is_here());
  EXPECT_EQ(sessions.asked.front(), "uplink.pause home");
  EXPECT_THAT(sessions.asked, Not(Contains("uplink.offer home")));
  EXPECT_TRUE(until([&] { return host("home").network.guest_uplink(web) == nullptr; }));
  EXPECT_EQ(f1().describe()[0]["uplink"], "here");
}

TEST_F(RelocationTest, CorrespondentsHearOfItBeforeAllElse) {
  host("home").track({connection(kWeb, kPeer, 5000)});
  host("q1").track({seen_by_peer(connection(kWeb, kPeer, 5000))});
  expect_staged();
  bool is_routed = true;
  sessions.refuses = [&](const auto& to, const auto& method) {
    if (method == "flow.update" && to == "q1") {
      is_routed = host("f1").network.guests().contains(kWeb);
    }
    return std::optional<Error>();
  };
  follow();
  EXPECT_EQ(sessions.asked.front(), "flow.update q1");
  EXPECT_FALSE(is_routed);
  EXPECT_TRUE(is_here());
  EXPECT_EQ(asked("flow.update q1"), 1U);
}

// A guest of f1's network has nothing to leave there; its other uplink has left its home before,
// and nat is nothing for that one.
TEST_F(RelocationTest, ToAnotherHostOfTheSameNetworkWhatIsNamedWorks) {
  json file = fabric_file();
  file["devices"]["at-f1"]["hosts"] = {"f1", "f2"};
  file["devices"].erase("at-f2");
  host("f2").in([&] { ASSERT_TRUE(host("f2").fabrics.set(file)); });
  const PortId second = host("f1").add_guest("web-at-f1", ip("10.66.2.30"));
  const json there = host("f1").in([&] { return host("f1").network.describe_nic(second).value(); });
  json own = host("home").in([&] { return host("home").network.describe_nic(web).value(); });
  own["port"]["guest_addresses"][0]["new_address"] = "10.66.2.210";
  const auto plan = [&](const json& uplinks, Strategy strategy) {
    return host("f2").in(
        [&] { return host("f2").relocations->plan(uplinks, "f1", 8, {.strategy = strategy}); });
  };
  const auto alone = plan(json::array({there}), Strategy::endpoint);
  ASSERT_FALSE(alone);
  EXPECT_THAT(alone.error().text, HasSubstr("at home at host f2, too: --strategy nat, or wire"));
  EXPECT_TRUE(plan(json::array({there}), Strategy::nat));
  const auto both = plan(json::array({own, there}), Strategy::endpoint);
  ASSERT_FALSE(both);
  EXPECT_THAT(both.error().text, HasSubstr("at home at host f2, too: --strategy wire"));
  EXPECT_FALSE(plan(json::array({own, there}), Strategy::nat));
  EXPECT_TRUE(plan(json::array({own}), Strategy::endpoint));
}

TEST_F(RelocationTest, WhatIsHeldIsGivenUpWithTheMove) {
  expect_staged();
  EXPECT_TRUE(has_interface());
  undo();
  EXPECT_FALSE(is_held());
  EXPECT_TRUE(is_over());
  EXPECT_EQ(asked("uplink.withdraw home"), 1U);
  EXPECT_FALSE(has_interface());
  EXPECT_EQ(host("f1").store->list("relocation").size(), 0U);
  EXPECT_NE(host("home").network.guest_uplink(web), nullptr);
  ASSERT_TRUE(until([&] { return host("home").ports().size() == 1; }));  // the relay's is gone
  expect_staged(8);
  follow();
  EXPECT_TRUE(is_here());
}

TEST_F(RelocationTest, AMoveIsOffWhileItsUplinkIsAskedFor) {
  stage();
  undo();
  EXPECT_TRUE(is_over());
  settle();
  EXPECT_FALSE(is_held());
  EXPECT_FALSE(has_interface());
}

TEST_F(RelocationTest, ASourceThatIsAwayHearsOfItWhenItIsBack) {
  expect_staged();
  sessions.away = {"home"};
  undo();
  settle();
  EXPECT_FALSE(f1().describe().empty());
  sessions.away.clear();
  EXPECT_TRUE(is_over());
  EXPECT_EQ(asked("uplink.withdraw home"), 1U);
}

TEST_F(RelocationTest, OneThatCouldNotBeHeldIsWhenItsGuestRuns) {
  sessions.refuses = [](const auto&, const auto& method) {
    return method == "uplink.offer" ? std::optional(Error{"no"}) : std::nullopt;
  };
  expect_staged();
  EXPECT_FALSE(is_held());
  sessions.refuses = [](auto&&...) { return std::nullopt; };
  follow();
  EXPECT_TRUE(is_here());
  EXPECT_EQ(asked("uplink.offer home"), 1U);
}

TEST_F(RelocationTest, TheGuestMayRunBeforeItIsHeld) {
  stage();
  ASSERT_TRUE(until([&] { return asked("uplink.offer home") == 1; }));
  EXPECT_FALSE(is_held());
  host("f1").in([&] { f1().follow({web}, [](auto&&) {}); });
  EXPECT_TRUE(is_here());
  EXPECT_EQ(asked("uplink.offer home"), 1U);
}

// It would stand by its offer for ever.
TEST_F(RelocationTest, AnOlderSourceIsAskedWhenTheGuestRuns) {
  sessions.protocol = kWithdrawProtocol - 1;
  expect_staged();
  EXPECT_EQ(asked("uplink.offer home"), 0U);
  follow();
  EXPECT_TRUE(is_here());
  EXPECT_EQ(asked("uplink.offer home"), 1U);
}

TEST_F(RelocationTest, AnAgentThatIsStartedAgainHoldsItWhenTheGuestRuns) {
  expect_staged();
  host("f1").in([&] {
    host("f1").network.discard_held({web});  // as nobody has told the next one's wires of it
    host("f1").start();
  });
  follow();
  EXPECT_TRUE(is_here());
  EXPECT_EQ(asked("uplink.offer home"), 1U);
}

TEST_F(RelocationTest, ASourceThatDiesThenIsNotWaitedFor) {
  expect_staged();
  sessions.away = {"home"};
  follow();
  EXPECT_TRUE(is_here());
  EXPECT_NE(host("home").network.guest_uplink(web), nullptr);
  sessions.away.clear();  // it is told when it is back
  EXPECT_TRUE(until([&] { return host("home").network.guest_uplink(web) == nullptr; }));
}

// The agent that had offered it ended; what comes in the pause is not lost all the same.
TEST_F(RelocationTest, ASourceThatHasForgottenItsOfferPausesAllTheSame) {
  expect_staged();
  host("home").in([&] {
    host("home").network.resume({web});
    host("home").start();
  });
  wire::PortState state{};
  sessions.loses_answer = [&](const auto&, const auto& method) {
    if (method == "uplink.pause") {
      host("home").wires.stats([&](const WireThreads::Stats& stats) {
        for (const auto& port : stats.ports) {
          if (port.id.port == web) state = port.state;
        }
      });
    }
    return std::optional<Error>();
  };
  follow();
  EXPECT_TRUE(until([&] { return state == wire::PortState::paused; }));
  EXPECT_TRUE(is_here());
}

// ---- the source says that its uplink stands ----

// Its packets may be at the target before the word that the guest is.
TEST_F(RelocationTest, WhatComesByTheRelayGoesToTheHeldUplink) {
  const std::string from_relay = "ip route get 10.66.1.20 from 10.99.0.9 iif relay-web";
  expect_staged();
  EXPECT_TRUE(shows_at_f1(from_relay, "dev web "));
  EXPECT_FALSE(shows_at_f1("ip route get 10.66.1.20 from 10.99.0.9 iif rack", "dev web "));
  undo();
  ASSERT_TRUE(until([&] { return is_over() && host("home").ports().size() == 1; }));
  EXPECT_FALSE(shows_at_f1("ip rule", "iif relay-web"));
  expect_staged(8);
  EXPECT_TRUE(shows_at_f1(from_relay, "dev web "));
  follow();
  ASSERT_TRUE(is_here());
  EXPECT_FALSE(shows_at_f1("ip rule", "iif relay-web"));
}

TEST_F(RelocationTest, WhereItsGuestIsNeedNotBeAskedFor) {
  host("home").in([] {
    os::Netlink().suggest_neighbour("web", kWeb.text(),
                                    *os::MacAddress::parse("52:54:00:0a:0b:0c"));
  });
  expect_staged();
  EXPECT_FALSE(shows_at_f1("ip neigh show dev web", kWeb.text())) << "what comes for it waits";
  follow();
  ASSERT_TRUE(is_here());
  EXPECT_TRUE(shows_at_f1("ip neigh show dev web", "10.66.1.20 lladdr 52:54:00:0a:0b:0c STALE"));
}

TEST_F(RelocationTest, WhatTheSourceHasSaidItIsNotAsked) {
  expect_staged();
  const auto since = connection(kWeb, kPeer, 5000);  // that it was staged
  host("home").track({since});
  leave();
  EXPECT_EQ(state_at_home(), wire::PortState::paused);
  settle();
  follow();
  ASSERT_TRUE(is_here());
  EXPECT_THAT(sessions.asked, Not(Contains("uplink.pause home")));
  EXPECT_EQ(host("f1").tracked(kWeb, os::kInheritedMark).size(), 1U);
  EXPECT_TRUE(until([&] { return host("home").network.guest_uplink(web) == nullptr; }));
}

TEST_F(RelocationTest, ItsWordMayCrossTheQuestion) {
  expect_staged();
  sessions.refuses = [](const auto&, const auto& method) {
    return method == "uplink.pause" ? std::optional(Error{"late"}) : std::nullopt;
  };
  follow();
  ASSERT_TRUE(until([&] { return asked("uplink.pause home") > 0; }));
  leave();
  ASSERT_TRUE(is_here());
  EXPECT_EQ(asked("uplink.pause home"), 1U);
}

TEST_F(RelocationTest, ItsWordMayBeLost) {
  expect_staged();
  sessions.refuses = [](const auto&, const auto& method) {
    return method == "uplink.stands" ? std::optional(Error{"lost"}) : std::nullopt;
  };
  leave();
  follow();
  EXPECT_TRUE(is_here());
}

TEST_F(RelocationTest, OthersWordsMeanNothing) {
  expect_staged();
  const json body{{"port", web.text()}, {"epoch", 6}, {"told", json::object()}};
  host("f1").answer("home", "uplink.stands", body, [](auto&&) {});
  json now = body;
  now["epoch"] = 7;
  host("f1").answer("q1", "uplink.stands", now, [](auto&&) {});
  follow();
  ASSERT_TRUE(is_here());
  EXPECT_EQ(asked("uplink.pause home"), 1U);
}

// The target refuses what it was given: all is as before it was staged.
TEST_F(RelocationTest, AGuestThatIsNotTakenStays) {
  expect_staged();
  const std::string uplink = way();
  leave();
  EXPECT_NE(way(), uplink);
  host("home").in([&] { host("home").relocations->stay({web}); });
  EXPECT_EQ(way(), uplink);
  EXPECT_EQ(state_at_home(), wire::PortState::live);
  undo();
  EXPECT_TRUE(is_over());
  EXPECT_TRUE(until([&] { return host("home").ports().size() == 1; }));
  EXPECT_EQ(way(), uplink);
  expect_staged(8);
  leave(8);
  follow();
  EXPECT_TRUE(is_here());
}

// It may have said so before the source came to hand the guest over.
TEST_F(RelocationTest, AMoveThatIsOffIsUndoneThoughItsUplinkStands) {
  expect_staged();
  const std::string uplink = way();
  leave();
  undo();
  EXPECT_TRUE(until([&] { return host("home").ports().size() == 1; }));
  EXPECT_EQ(way(), uplink);
  host("home").in([&] { host("home").relocations->stay({web}); });
  EXPECT_EQ(way(), uplink);
}

TEST_F(RelocationTest, ARelayThatWasGoingAsTheAgentEndedGoes) {
  host("home").in([&] {
    ASSERT_TRUE(host("home").network.add_port({{"name", "relay-old"}, {"kind", "uplink"}}));
    host("home").store->put("parting relay", "relay-old", {{"other", "f1"}});
    host("home").start();
  });
  EXPECT_TRUE(until([&] { return host("home").ports() == std::vector<std::string>{"web"}; }));
  EXPECT_TRUE(until([&] { return host("home").store->list("parting relay").empty(); }));
}

// And one whose agent was started again before it heard so.
TEST_F(RelocationTest, AGuestThatIsNotTakenStaysByTheRecord) {
  expect_staged();
  const std::string uplink = way();
  leave();
  host("home").in([&] {
    host("home").start();
    host("home").relocations->stay({web});
  });
  EXPECT_EQ(way(), uplink);
  undo();
  EXPECT_TRUE(until([&] { return host("home").ports().size() == 1; }));
  EXPECT_EQ(way(), uplink);
}

}  // namespace
}  // namespace godwit::agent::endpoint_testing
