// A guest that moved with strategy endpoint moves so again: to a third host, and home.
#include "agent/endpoint_testing.hh"
#include "os/moved_connections.hh"

namespace godwit::agent::endpoint_testing {
namespace {

using testing::HasSubstr;
using Alive = std::pair<std::size_t, std::size_t>;
using PeerPorts = std::set<std::uint16_t>;

const Ip kStranger = ip("10.99.0.9");  // no agent has it

// Connections by their peers' ports, 5xxx with kPeer, 6xxx with kStranger:
//   5000, 6000  older than all moves
//   5001, 6001  began at f1, so their peers know the guest by its address there
struct AgainTest : EndpointTest {
  void SetUp() override {
    EndpointTest::SetUp();
    if (IsSkipped()) return;
    host("home").track({connection(kWeb, kPeer, 5000), connection(kWeb, kStranger, 6000)});
    host("q1").track({seen_by_peer(connection(kWeb, kPeer, 5000))});
    first.emplace(host("home"), host("f1"), web, "web", kWeb, 3600);
    go(*first);
    ASSERT_TRUE(until([&] { return first->lead().is_led() && first->lead().missing().empty(); }));
    auto to_it = connection(kWeb, kPeer, 5001);
    to_it.mark = os::kNewAddressMark;
    host("f1").track({to_it, connection(kWeb, kStranger, 6001)});
  }
  void TearDown() override { first.reset(); }
  Move move_on(const std::string& from, const std::string& to, Epoch epoch = 8,
               std::int64_t relay_limit_s = 3600) {
    return {host(from), host(to), web, "web", kWeb, relay_limit_s, epoch};
  }
  bool is_led(Move& move) {
    return until([&] { return move.lead().is_led() && move.lead().missing().empty(); });
  }
  PeerPorts marked(const std::string& at, std::uint32_t bits) {
    PeerPorts ports;
    for (const auto& each : host(at).tracked(kWeb, bits)) ports.insert(each.peer_port);
    return ports;
  }
  void look(Move& move, const std::string& at) {
    host(at).in([&] { move.lead().uplink_is_here(); });
    settle();
  }
  void end_connections(const std::string& at, const PeerPorts& ports) {
    host(at).in([&] {
      auto all = os::connections_of({kWeb});
      std::erase_if(all, [&](const auto& each) { return !ports.contains(each.peer_port); });
      os::remove_connections(all);
    });
  }
  json associations(const std::string& at = "q1") {
    return host(at).parts->associations.describe();
  }
  json relays(const std::string& at) { return host(at).parts->relays.describe(); }
  bool forwards(const std::string& at, const std::string& to) {
    return std::ranges::any_of(
        relays(at), [&](const json& each) { return each["to"] == to && each["forwards"] == true; });
  }
  std::set<std::string> ports(const std::string& at) {
    const auto all = host(at).ports();
    return {all.begin(), all.end()};
  }
  void restart(const std::string& name) {
    host(name).in([&] { host(name).start(); });
  }
  // As its agent is started: what is left of a move that it was the target of goes on.
  void restart(Move& move) { move.restart(); }
  bool nothing_is_left(const std::string& guest_is_at) {
    for (const auto& [name, each] : hosts) {
      for (const char* kind : {"relay", "relocation connections", "association"}) {
        if (!each->store->list(kind).empty()) return false;
      }
      if (name != guest_is_at && !each->store->list("guest-rules").empty()) return false;
      for (const auto& port : each->ports()) {
        if (port.starts_with("relay")) return false;
      }
    }
    return true;
  }

  std::optional<Move> first;
};

// ---- on to a third host ----

TEST_F(AgainTest, OnAThirdHostWhatIsOlderIsDirectAndTheRestRelayed) {
  Move next = move_on("f1", "f2");
  go(next);
  ASSERT_TRUE(is_led(next));
  EXPECT_EQ(marked("f2", os::kInheritedMark), (PeerPorts{5000, 5001, 6000, 6001}));
  EXPECT_EQ(marked("f2", os::kRenamedMark), (PeerPorts{5001, 6001}));
  look(next, "f2");
  EXPECT_EQ(next.alive(), Alive(1, 3));
  EXPECT_EQ(associations()[0]["host"], "f2");
  EXPECT_EQ(host("q1").tracked(kPeer, os::kLabelledMark).size(), 1U);
  EXPECT_TRUE(forwards("home", "f1"));
  EXPECT_TRUE(forwards("f1", "f2"));
  EXPECT_EQ(first->described()["went_on_to"], "f2");
  EXPECT_EQ(host("f1").parts->relays.names(), std::set{first->fresh});
  EXPECT_EQ(host("f1").parts->relays.lent(), std::set<Ip>{});
  // It is known by its own, wherever it is.
  restart("home");
  EXPECT_EQ(host("home").parts->relays.lent(), std::set{kWeb});
}

TEST_F(AgainTest, ARelayEndsWithWhatItServesAndSoDoesTheOneBefore) {
  Move next = move_on("f1", "f2");
  go(next);
  ASSERT_TRUE(is_led(next));
  end_connections("f1", {6000});
  EXPECT_TRUE(until([&] { return !forwards("home", "f1"); })) << first->described();
  EXPECT_TRUE(forwards("f1", "f2"));
  end_connections("f2", {6000, 6001, 5001});
  EXPECT_TRUE(until([&] { return first->lead().is_over(); }, seconds(20))) << first->described();
  EXPECT_EQ(relays("f1"), json::array());
  EXPECT_TRUE(until([&] { return ports("f1").empty(); }));
  EXPECT_EQ(host("f1").store->list("guest-rules").size(), 0U);
  EXPECT_EQ(host("f1").in([] { return os::connections_of({kWeb}).size(); }), 0U);
  look(next, "f2");
  EXPECT_EQ(next.alive(), Alive(1, 0));
  EXPECT_EQ(associations()[0]["host"], "f2");  // whose it is
  end_connections("f2", {5000});
  EXPECT_TRUE(until([&] { return next.lead().is_over(); }));
  EXPECT_TRUE(nothing_is_left("f2"));
}

TEST_F(AgainTest, WhoseHostIsAwayThenGoesByTheHostThatItKnows) {
  sessions.refuses = [](const auto&, const auto& method) {
    return method == "flow.stage" ? std::optional(Error{"no"}) : std::nullopt;
  };
  Move next = move_on("f1", "f2");
  go(next);
  ASSERT_TRUE(is_led(next));
  look(next, "f2");
  EXPECT_EQ(next.alive(), Alive(0, 4));
  EXPECT_EQ(associations()[0]["host"], "f1");
  end_connections("f2", {5000, 5001, 6000, 6001});
  end_connections("f1", {5000, 5001, 6000, 6001});
  EXPECT_TRUE(until([&] { return first->lead().is_over() && next.lead().is_over(); }, seconds(20)));
  EXPECT_TRUE(until([&] { return nothing_is_left("f2"); }));
}

TEST_F(AgainTest, WhenItsTimeIsOverTheChainRefuses) {
  Move next = move_on("f1", "f2", 8, 0);
  go(next);
  ASSERT_TRUE(until([&] { return !next.described().contains("relay"); }, seconds(15)));
  EXPECT_EQ(next.described()["reset"], 4U);  // at its first look none is direct yet
  settle();
  EXPECT_FALSE(forwards("f1", "f2"));
  ASSERT_EQ(relays("f1").size(), 1U);  // it refuses for a while
}

TEST_F(AgainTest, WhatIsUndoneIsAsAfterTheFirst) {
  using Undone = std::pair<const char*, bool>;  // and whether the uplink has stood for it
  for (const auto& [to, stood] : {Undone("f2", false), Undone("home", false), Undone("f2", true)}) {
    Move next = move_on("f1", to);
    next.stage();
    expect_staged(next);
    if (stood) {
      host("f1").in([&] { ASSERT_TRUE(host("f1").parts->relays.forward(web, "f2")); });
      EXPECT_EQ(first->described()["went_on_to"], "f2");
      EXPECT_EQ(first->record.lead["has_left"], true);
    }
    host(to).in([&] { next.lead().undo(); });
    EXPECT_TRUE(until([&] { return next.lead().is_over(); }));
    settle();
    EXPECT_EQ(relays("f1"), json::array());
    EXPECT_TRUE(forwards("home", "f1"));
    EXPECT_EQ(associations()[0]["host"], "f1");
    EXPECT_EQ(marked(to, os::kRenamedMark), PeerPorts());
    look(*first, "f1");
    EXPECT_EQ(first->alive(), Alive(1, 1));
    EXPECT_FALSE(first->described().contains("went_on_to"));
    EXPECT_EQ(first->record.lead["has_left"], false);
  }
  EXPECT_TRUE(until([&] { return ports("f2").empty(); }));
  EXPECT_TRUE(until([&] { return ports("home") == std::set<std::string>{"relay-web"}; }));
}

// ---- home ----

TEST_F(AgainTest, AtHomeOnlyWhatHasAnotherAddressIsRelayed) {
  Move back = move_on("f1", "home");
  go(back);
  ASSERT_TRUE(is_led(back));
  EXPECT_EQ(marked("home", os::kRenamedMark), (PeerPorts{5001, 6001}));
  look(back, "home");
  EXPECT_EQ(back.alive(), Alive(0, 2));
  EXPECT_EQ(relays("home"), json::array());  // the one that it left by
  EXPECT_EQ(ports("home"), (std::set<std::string>{"web", "relay-8-web"}));
  EXPECT_TRUE(forwards("f1", "home"));
  // Who was told is told that it is over, and the relay by which it came is no more.
  EXPECT_TRUE(until([&] { return associations() == json::array(); }));
  EXPECT_TRUE(until([&] { return !first->described().contains("relay"); }, seconds(15)));
  EXPECT_TRUE(until([&] { return ports("f1") == std::set<std::string>{"relay-8-web"}; }));
  EXPECT_FALSE(first->lead().is_over());
  EXPECT_EQ(host("home").network.new_addresses(), (std::map<Ip, Ip>()));
  end_connections("home", {5001, 6001});
  EXPECT_TRUE(until([&] { return back.lead().is_over() && first->lead().is_over(); }, seconds(20)));
  EXPECT_TRUE(until([&] { return nothing_is_left("home"); }));
  EXPECT_EQ(host("home").store->list("guest-rules").size(), 0U);
  const auto rules = host("home").in([] { return os::has_moved_rules(); });
  EXPECT_FALSE(rules.value_or(true));
}

TEST_F(AgainTest, ARelayHomeStaysUntilAllAreTold) {
  Move back = move_on("f1", "home");
  sessions.refuses = [](const auto&, const auto& method) {
    return method == "flow.end" ? std::optional(Error{"no"}) : std::nullopt;
  };
  go(back);
  ASSERT_TRUE(is_led(back));
  end_connections("home", {5001, 6001});
  EXPECT_FALSE(until([&] { return back.lead().is_over(); }, seconds(12)));
  EXPECT_TRUE(forwards("f1", "home"));
  sessions.refuses = [](auto&&...) { return std::nullopt; };
  EXPECT_TRUE(until([&] { return back.lead().is_over() && first->lead().is_over(); }, seconds(25)));
  EXPECT_TRUE(until([&] { return nothing_is_left("home"); }));
}

TEST_F(AgainTest, AgentsThatEndMeanwhileGoOn) {
  Move back = move_on("f1", "home");
  back.stage();
  expect_staged(back);
  restart(*first);
  restart("q1");
  back.restart();
  EXPECT_TRUE(back.lead().is_staged());
  back.run();
  ASSERT_TRUE(until([&] { return back.lead().is_forwarded(); }));
  back.stand();
  restart(*first);
  back.arrive();
  back.restart();
  restart(*first);
  ASSERT_TRUE(is_led(back));
  look(back, "home");
  EXPECT_EQ(back.alive(), Alive(0, 2));
  EXPECT_TRUE(forwards("f1", "home"));
  EXPECT_EQ(relays("home"), json::array());
  EXPECT_TRUE(until([&] { return associations() == json::array(); }));
  end_connections("home", {5001, 6001});
  EXPECT_TRUE(until([&] { return back.lead().is_over() && first->lead().is_over(); }, seconds(20)));
  EXPECT_TRUE(until([&] { return nothing_is_left("home"); }));
}

TEST_F(AgainTest, ByAThirdHostItComesHome) {
  Move next = move_on("f1", "f2");
  go(next);
  ASSERT_TRUE(is_led(next));
  host("f2").track({connection(kWeb, kStranger, 6002)});
  Move back = move_on("f2", "home", 9);
  go(back);
  ASSERT_TRUE(is_led(back));
  EXPECT_EQ(marked("home", os::kRenamedMark), (PeerPorts{5001, 6001, 6002}));
  look(back, "home");
  EXPECT_EQ(back.alive(), Alive(0, 3));
  EXPECT_TRUE(forwards("f1", "f2") && forwards("f2", "home"));
  EXPECT_TRUE(until([&] { return !first->described().contains("relay"); }, seconds(15)));
  EXPECT_TRUE(until([&] { return associations() == json::array(); }));
  end_connections("home", {5001, 6001, 6002});
  for (const char* each : {"f1", "f2"}) end_connections(each, {5000, 5001, 6000, 6001, 6002});
  EXPECT_TRUE(until(
      [&] { return back.lead().is_over() && next.lead().is_over() && first->lead().is_over(); },
      seconds(40)));
  EXPECT_TRUE(until([&] { return nothing_is_left("home"); }));
}

TEST_F(AgainTest, FromHomeItGoesOnWithWhatIsRelayedThere) {
  Move back = move_on("f1", "home");
  go(back);
  ASSERT_TRUE(is_led(back));
  EXPECT_TRUE(until([&] { return associations() == json::array(); }));
  Move on = move_on("home", "f2", 9);
  go(on);
  ASSERT_TRUE(is_led(on));
  EXPECT_EQ(marked("f2", os::kRenamedMark), (PeerPorts{5001, 6001}));
  look(on, "f2");
  EXPECT_EQ(on.alive(), Alive(1, 3));
  EXPECT_TRUE(forwards("f1", "home") && forwards("home", "f2"));
  EXPECT_EQ(back.described()["went_on_to"], "f2");
  end_connections("home", {5000, 5001, 6000, 6001});
  end_connections("f2", {5000, 5001, 6000, 6001});
  EXPECT_TRUE(
      until([&] { return back.lead().is_over() && on.lead().is_over() && first->lead().is_over(); },
            seconds(40)));
  EXPECT_TRUE(until([&] { return nothing_is_left("f2"); }));
}

}  // namespace
}  // namespace godwit::agent::endpoint_testing
