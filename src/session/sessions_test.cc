// Two and three hosts in one loop over loopback TCP.
#include "session/sessions.hh"

#include <gmock/gmock.h>
#include <sys/socket.h>

#include "session/test_host.hh"

namespace godwit::session {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class SessionsTest : public testing::Test {
 protected:
  bool wait(std::move_only_function<bool()> done) { return os::run_until(loop_, done); }
  // A port of this machine where nobody listens.
  os::Endpoint closed_port() {
    const auto listener = os::Listener::tcp(loop_, os::Endpoint::loopback(0), [](auto, auto&) {});
    return listener->local();
  }

  os::Loop loop_;
  crypto::FleetCa ca_ = crypto::FleetCa::make("test");
};

TEST_F(SessionsTest, RequestsAndPushesGoBothWays) {
  TestHost east(loop_, ca_, "east-1"), west(loop_, ca_, "west-1");
  east.sessions.want("west-1", {west.address});
  ASSERT_TRUE(wait([&] { return joined(east, west); }));
  EXPECT_EQ(east.ask("west-1", "echo", 1), R"(["east-1",1])");
  EXPECT_EQ(west.ask("east-1", "echo", "x"), R"(["west-1","x"])");
  EXPECT_EQ(east.ask("west-1", "what", {}), "error: what: unknown method");
  EXPECT_EQ(east.ask("west-1", "drop", {}), "error: drop: the request was dropped");
  EXPECT_EQ(east.ask("west-1", "keep", {}, milliseconds(30)),
            "error: keep: no answer from west-1 within 30 ms");
  EXPECT_TRUE(east.sessions.find("west-1")->push("news", {{"a", 1}}));
  EXPECT_TRUE(west.sessions.find("east-1")->push_binary("wire", from_hex("4142")));
  ASSERT_TRUE(wait([&] { return !west.pushed.empty() && !east.pushed.empty(); }));
  EXPECT_THAT(west.pushed, ElementsAre(R"(east-1 news {"a":1})"));
  EXPECT_THAT(east.pushed, ElementsAre("west-1 wire AB"));
  EXPECT_TRUE(wait([&] { return east.sessions.find("west-1")->rtt() > Nanoseconds(0); }));
  EXPECT_EQ(east.sessions.find("west-1")->wire_secret(),
            west.sessions.find("east-1")->wire_secret());
  EXPECT_TRUE(east.sessions.find("west-1")->is_initiator());
  EXPECT_FALSE(west.sessions.find("east-1")->is_initiator());
}

TEST_F(SessionsTest, RequestToADownPeerFailsAtOnce) {
  TestHost east(loop_, ca_, "east-1");
  std::string error;
  const auto ask = [&](const std::string& peer) {
    error.clear();
    east.sessions.request(
        peer, "echo", {}, [&](auto result) { error = result.error().text; }, seconds(10));
    return error;  // set before request() returned
  };
  EXPECT_EQ(ask("west-1"), "echo: no session with west-1: it is not a known host");
  const os::Endpoint nowhere = closed_port();
  east.sessions.want("west-1", {nowhere});
  EXPECT_EQ(ask("west-1"), "echo: no session with west-1: not connected yet");
  ASSERT_TRUE(wait([&] { return !east.error("west-1").empty(); }));
  EXPECT_THAT(ask("west-1"), HasSubstr(nowhere.text()));
  EXPECT_THAT(ask("west-1"), HasSubstr("refused"));
}

TEST_F(SessionsTest, SimultaneousDialsLeaveOneConnection) {
  for (int round = 0; round < 20; ++round) {
    TestHost east(loop_, ca_, "east-1"), west(loop_, ca_, "west-1");
    east.sessions.want("west-1", {west.address});
    west.sessions.want("east-1", {east.address});
    ASSERT_TRUE(wait([&] { return joined(east, west); })) << east.error("west-1");
    // Whatever is still under way must not disturb the session: a full exchange both ways.
    const auto id = east.sessions.find("west-1")->id();
    EXPECT_EQ(east.ask("west-1", "echo", round), fmt::format(R"(["east-1",{}])", round));
    EXPECT_EQ(west.ask("east-1", "echo", round), fmt::format(R"(["west-1",{}])", round));
    ASSERT_TRUE(joined(east, west));
    EXPECT_EQ(east.sessions.find("west-1")->id(), id);
    EXPECT_EQ(east.up.size(), 1U);
    EXPECT_EQ(west.up.size(), 1U);
  }
}

TEST_F(SessionsTest, LostConnectionIsMadeAgain) {
  TestHost east(loop_, ca_, "east-1"), west(loop_, ca_, "west-1");
  east.sessions.want("west-1", {west.address});
  ASSERT_TRUE(wait([&] { return joined(east, west); }));
  const auto first = east.sessions.find("west-1")->id();
  std::string lost;
  east.sessions.request(
      "west-1", "keep", {}, [&](auto result) { lost = result.error().text; }, seconds(60));
  ASSERT_TRUE(wait([&] { return !west.kept.empty(); }));
  ::shutdown(east.dialled.back(), SHUT_RDWR);  // as a dying network would
  ASSERT_TRUE(wait([&] { return !east.down.empty() && !west.down.empty() && joined(east, west); }));
  EXPECT_THAT(lost, HasSubstr("keep: the session with west-1 ended"));
  EXPECT_NE(east.sessions.find("west-1")->id(), first);
  EXPECT_EQ(east.up.size(), 2U);
  west.kept.clear();  // answers to a session that is gone: harmless
}

TEST_F(SessionsTest, RestartedPeerIsTakenBackAtOnce) {
  // The chooser (east-1) still believes in the old session: nothing closed it.
  for (const bool chooser_restarts : {false, true}) {
    const std::string stays = chooser_restarts ? "west-1" : "east-1";
    const std::string restarts = chooser_restarts ? "east-1" : "west-1";
    TestHost first(loop_, ca_, stays);
    auto second = std::make_unique<TestHost>(loop_, ca_, restarts);
    second->sessions.want(stays, {first.address});
    ASSERT_TRUE(wait([&] { return joined(first, *second); }));
    TestHost again(loop_, ca_, restarts);
    again.sessions.want(stays, {first.address});
    const Instant start = loop_.now();
    ASSERT_TRUE(wait([&] { return joined(first, again); })) << again.error(stays);
    EXPECT_LT(loop_.now() - start, kProbe);
    second.reset();
  }
}

TEST_F(SessionsTest, DeadAddressDelaysTheNextOnlyALittle) {
  TestHost east(loop_, ca_, "east-1");
  // Accepts, then never says a word: the handshake cannot end.
  std::vector<std::unique_ptr<os::SocketStream>> held;
  const auto mute = os::Listener::tcp(loop_, os::Endpoint::loopback(0), [&](auto stream, auto&) {
    held.push_back(std::move(stream));
  });
  TestHost west(loop_, ca_, "west-1");
  const Instant start = loop_.now();
  east.sessions.want("west-1", {mute->local(), west.address});
  ASSERT_TRUE(wait([&] { return joined(east, west); }));
  EXPECT_EQ(held.size(), 1U);
  EXPECT_LT(loop_.now() - start, kDialTimeout);
}

TEST_F(SessionsTest, StrangersAreRefusedWithTheReason) {
  const crypto::FleetCa other = crypto::FleetCa::make("test");
  const crypto::WallTime now = crypto::wall_now();
  TestHost west(loop_, ca_, "west-1");
  TestHost foreign(loop_, other, "east-1");
  const crypto::Validity past{now - std::chrono::hours(2), now - std::chrono::hours(1)};
  TestHost expired(loop_, ca_, "east-2", {}, past);
  foreign.sessions.want("west-1", {west.address});
  expired.sessions.want("west-1", {west.address});
  ASSERT_TRUE(wait([&] {
    return west.refused.size() >= 2 && !foreign.error("west-1").empty() &&
           !expired.error("west-1").empty();
  }));
  EXPECT_THAT(foreign.error("west-1"), HasSubstr("is of another fleet (foreign CA)"));
  EXPECT_THAT(expired.error("west-1"), HasSubstr("the peer refused our certificate: expired"));
  EXPECT_THAT(west.refused, testing::Contains(HasSubstr("certificate of east-2 expired on")));
  EXPECT_TRUE(west.up.empty());
  EXPECT_TRUE(foreign.up.empty());
  EXPECT_TRUE(expired.up.empty());
}

TEST_F(SessionsTest, WrongHostAtTheAddressIsNamed) {
  TestHost east(loop_, ca_, "east-1"), west(loop_, ca_, "west-2");
  east.sessions.want("west-1", {west.address});
  ASSERT_TRUE(wait([&] { return !east.error("west-1").empty(); }));
  EXPECT_THAT(east.error("west-1"), HasSubstr("the host that answered is west-2, not west-1"));
}

TEST_F(SessionsTest, RelayJoinsHostsThatCannotDialEachOther) {
  TestHost east(loop_, ca_, "east-1"), north(loop_, ca_, "north-1"), west(loop_, ca_, "west-1");
  const os::Endpoint nowhere = closed_port();
  // Who dials whom decides who dials the legs: each way once.
  for (const bool relay_dials_target : {false, true}) {
    TestHost a(loop_, ca_, relay_dials_target ? "a-1" : "z-1");
    a.sessions.want("north-1", {north.address});
    if (relay_dials_target) {
      north.sessions.want("west-1", {west.address});
    } else {
      west.sessions.want("north-1", {north.address});
    }
    ASSERT_TRUE(wait([&] { return joined(a, north) && joined(west, north); }));
    a.sessions.want("west-1", {nowhere});
    ASSERT_TRUE(wait([&] { return joined(a, west); })) << a.error("west-1");
    EXPECT_EQ(a.sessions.find("west-1")->via(), "north-1");
    EXPECT_EQ(west.sessions.find(a.name())->via(), "north-1");
    EXPECT_EQ(a.sessions.find("west-1")->wire_secret(),
              west.sessions.find(a.name())->wire_secret());

    const std::string secret = "the relay must not be able to read this";
    EXPECT_EQ(a.ask("west-1", "echo", secret), fmt::format(R"(["{}","{}"])", a.name(), secret));
    EXPECT_GT(north.relayed.size(), 2 * secret.size());
    EXPECT_EQ(north.relayed.find(secret), std::string::npos);
    EXPECT_EQ(north.relayed.find("echo"), std::string::npos);

    // A lane goes the same way.
    std::unique_ptr<TlsStream> lane;
    a.sessions.open_lane("west-1", [&](Result<Dial::Reached> reached) {
      ASSERT_TRUE(reached) << reached.error().text;
      lane = std::move(reached->stream);
    });
    ASSERT_TRUE(wait([&] { return lane != nullptr && !west.lanes.empty(); }));
    EXPECT_EQ(west.lanes.back()->tls().peer_name(), a.name());
    west.lanes.clear();
  }
}

TEST_F(SessionsTest, RelaySaysWhyItCannot) {
  TestHost east(loop_, ca_, "east-1"), north(loop_, ca_, "north-1");
  east.sessions.want("north-1", {north.address});
  ASSERT_TRUE(wait([&] { return joined(east, north); }));
  east.sessions.want("west-1", {});
  ASSERT_TRUE(wait([&] { return !east.error("west-1").empty(); }));
  EXPECT_THAT(east.error("west-1"),
              HasSubstr("via north-1: relay.call: north-1 has no direct session with west-1"));
}

TEST_F(SessionsTest, LaneToAHostThatDialledUs) {
  // west has no address that east could dial: it dials back when asked.
  TestHost east(loop_, ca_, "east-1"), west(loop_, ca_, "west-1");
  west.sessions.want("east-1", {east.address});
  ASSERT_TRUE(wait([&] { return joined(east, west); }));
  std::unique_ptr<TlsStream> lane;
  east.sessions.open_lane("west-1", [&](Result<Dial::Reached> reached) {
    ASSERT_TRUE(reached) << reached.error().text;
    lane = std::move(reached->stream);
  });
  ASSERT_TRUE(wait([&] { return lane != nullptr && !west.lanes.empty(); }));
  std::string got;
  auto& far = *west.lanes.back();
  far.start({.readable =
                 [&] {
                   std::array<std::byte, 4096> chunk;
                   while (const std::size_t size = far.read(chunk)) {
                     got += as_text(BytesView(chunk).first(size));
                   }
                 },
             .writable = {},
             .closed = {}});
  EXPECT_EQ(lane->write(as_bytes("bulk")), 4U);
  EXPECT_TRUE(wait([&] { return got == "bulk"; }));
}

TEST_F(SessionsTest, ALaneTakesTheWayOfItsSessionFirst) {
  // What east knows of west leads nowhere, and it has found out: it does not try that again.
  TestHost east(loop_, ca_, "east-1"), west(loop_, ca_, "west-1");
  east.sessions.want("west-1", {closed_port()});
  ASSERT_TRUE(wait([&] { return !east.error("west-1").empty(); }));
  west.sessions.want("east-1", {east.address});
  ASSERT_TRUE(wait([&] { return joined(east, west); }));
  const std::size_t dialled = east.dialled.size();
  bool opened = false;
  east.sessions.open_lane("west-1", [&](Result<Dial::Reached> reached) {
    ASSERT_TRUE(reached) << reached.error().text;
    opened = true;
  });
  EXPECT_TRUE(wait([&] { return opened; }));
  EXPECT_EQ(east.dialled.size(), dialled);
}

TEST_F(SessionsTest, ASessionInDoubtThatAnswersStays) {
  TestHost east(loop_, ca_, "east-1"), west(loop_, ca_, "west-1");
  east.sessions.want("west-1", {west.address});
  ASSERT_TRUE(wait([&] { return joined(east, west); }));
  east.sessions.find("west-1")->doubt(milliseconds(200));
  const Instant end = loop_.now() + milliseconds(400);
  EXPECT_TRUE(wait([&] { return loop_.now() > end; }));
  EXPECT_TRUE(east.has("west-1"));
  // No answer can come as fast as this.
  east.sessions.find("west-1")->doubt(Nanoseconds(1));
  EXPECT_TRUE(wait([&] { return !east.down.empty(); }));
  EXPECT_THAT(east.down.front(), HasSubstr("no answer from west-1"));
}

TEST_F(SessionsTest, AgeingSessionIsReplacedWithoutLosingRequests) {
  LinkLimits limits;
  limits.max_age = milliseconds(1);
  limits.stable_after = milliseconds(50);  // not sooner
  TestHost east(loop_, ca_, "east-1", limits), west(loop_, ca_, "west-1", limits);
  west.sessions.want("east-1", {east.address});
  ASSERT_TRUE(wait([&] { return joined(east, west); }));
  const auto first = east.sessions.find("west-1")->id();
  std::string answer;
  east.sessions.request(
      "west-1", "keep", {}, [&](auto result) { answer = result->dump(); }, seconds(60));
  ASSERT_TRUE(
      wait([&] { return joined(east, west) && east.sessions.find("west-1")->id() != first; }));
  ASSERT_EQ(west.kept.size(), 1U);
  west.kept.front().reply("late");
  EXPECT_TRUE(wait([&] { return answer == "\"late\""; }));
}

TEST_F(SessionsTest, ForgottenPeerIsLeftAlone) {
  TestHost east(loop_, ca_, "east-1"), west(loop_, ca_, "west-1");
  east.sessions.want("west-1", {west.address});
  ASSERT_TRUE(wait([&] { return joined(east, west); }));
  east.sessions.forget("west-1");
  EXPECT_FALSE(east.has("west-1"));
  ASSERT_TRUE(wait([&] { return !west.has("east-1"); }));
  EXPECT_TRUE(east.sessions.status().empty());
}

}  // namespace
}  // namespace godwit::session
