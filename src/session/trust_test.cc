// Hosts of two fleets that trust each other, in one loop over loopback TCP.
#include <gmock/gmock.h>

#include "session/protocols.hh"
#include "session/test_host.hh"

namespace godwit::session {
namespace {

using testing::HasSubstr;

// A host of `ours` that trusts `theirs`, under a name of its own choice.
struct TrustingHost {
  TrustingHost(os::Loop& the_loop, const crypto::FleetCa& ours, const std::string& name,
               const crypto::TrustedFleet& theirs)
      : loop(the_loop),
        identity(crypto::Identity::make(ours, name).value()),
        sessions(the_loop, identity, theirs,
                 {.on_up = [this](Session& session) { up.push_back(session.peer()); },
                  .on_down = {},
                  .on_request =
                      [](Session& session, const std::string& method, const nlohmann::json& body,
                         Responder responder) {
                        if (method == "echo") return responder.reply({session.peer(), body});
                        responder.fail("unknown method");
                      },
                  .on_push = {},
                  .on_relayed = {},
                  .on_relaying = {}}),
        acceptor(
            the_loop, identity,
            {.session = [this](auto, const auto&) { ++wrongly_in; },
             .lane = [this](auto, const auto&) { ++wrongly_in; },
             .relay = [this](auto, const auto&) { ++wrongly_in; },
             .join = {},
             .trust = [this](std::unique_ptr<TlsStream> stream,
                             const std::string& via) { sessions.accept(std::move(stream), via); },
             .refused = [this](const std::string&,
                               const std::string& reason) { refused.push_back(reason); }}),
        address(acceptor.listen(os::Endpoint::loopback(0))) {
    acceptor.trust({theirs});
  }

  std::string ask(const std::string& peer, const std::string& method, const nlohmann::json& body) {
    auto answer = std::make_shared<std::string>();
    sessions.request(
        peer, method, body,
        [answer](Result<nlohmann::json> result) {
          *answer = result ? result->dump() : "error: " + result.error().text;
        },
        seconds(10));
    EXPECT_TRUE(os::run_until(loop, [&] { return !answer->empty(); }));
    return *answer;
  }

  os::Loop& loop;
  crypto::Identity identity;
  std::vector<std::string> up, refused;
  int wrongly_in = 0;
  Sessions sessions;
  Acceptor acceptor;
  os::Endpoint address;
};

class TrustSessions : public testing::Test {
 protected:
  bool wait(std::move_only_function<bool()> done) { return os::run_until(loop_, done); }

  os::Loop loop_;
  // Of the same name, with hosts of the same name.
  crypto::FleetCa ours_ = crypto::FleetCa::make("test");
  crypto::FleetCa theirs_ = crypto::FleetCa::make("test");
};

TEST_F(TrustSessions, BothDialAndKeepOneConnection) {
  for (int round = 0; round < 10; ++round) {
    TrustingHost here(loop_, ours_, "h1", {"beta", theirs_.certificate()});
    TrustingHost there(loop_, theirs_, "h1", {"alpha", ours_.certificate()});
    here.sessions.want("h1@beta", {there.address});
    there.sessions.want("h1@alpha", {here.address});
    ASSERT_TRUE(wait([&] {
      const Session* a = here.sessions.find("h1@beta");
      const Session* b = there.sessions.find("h1@alpha");
      return a != nullptr && b != nullptr && a->id() == b->id();
    }));
    const auto id = here.sessions.find("h1@beta")->id();
    EXPECT_EQ(here.ask("h1@beta", "echo", 1), R"(["h1@alpha",1])");
    EXPECT_EQ(there.ask("h1@alpha", "echo", 2), R"(["h1@beta",2])");
    EXPECT_EQ(here.sessions.find("h1@beta")->id(), id);
    EXPECT_EQ(here.up.size(), 1U);
    EXPECT_EQ(there.up.size(), 1U);
  }
}

TEST_F(TrustSessions, NothingIsRelayedForAnotherFleet) {
  TrustingHost here(loop_, ours_, "h1", {"beta", theirs_.certificate()});
  TrustingHost there(loop_, theirs_, "h1", {"alpha", ours_.certificate()});
  here.sessions.want("h1@beta", {there.address});
  ASSERT_TRUE(wait([&] { return here.sessions.find("h1@beta") != nullptr; }));
  const nlohmann::json call = {{"to", "h2"}, {"ticket", std::string(32, 'a')}};
  EXPECT_EQ(here.ask("h1@beta", "relay.call", call), "error: relay.call: unknown method");
  EXPECT_EQ(here.ask("h1@beta", "relay.answer", {{"from", "h2"}, {"ticket", std::string(32, 'a')}}),
            "error: relay.answer: unknown method");
}

TEST_F(TrustSessions, OnlyTheirOwnProtocolIsOpenToThem) {
  TrustingHost here(loop_, ours_, "h1", {"beta", theirs_.certificate()});
  const crypto::TrustedFleet alpha{"alpha", ours_.certificate()};
  const crypto::Identity stranger = crypto::Identity::make(theirs_, "h2").value();
  std::size_t asked = 0;
  for (const char* alpn : {kSessionAlpn, kLaneAlpn, kRelayAlpn, kApiAlpn}) {
    TlsStream stream(loop_, os::tcp_connect(loop_, here.address),
                     crypto::TlsEngine::client(crypto::TlsContext(stranger, alpha), alpn, ""));
    stream.handshake([](Result<>) {});
    ++asked;
    ASSERT_TRUE(wait([&] { return here.refused.size() == asked; })) << alpn;
  }
  EXPECT_EQ(here.wrongly_in, 0);
  EXPECT_TRUE(here.up.empty());
}

TEST_F(TrustSessions, TrustIsMutualAndEnds) {
  TrustingHost here(loop_, ours_, "h1", {"beta", theirs_.certificate()});
  here.acceptor.trust({});
  TrustingHost there(loop_, theirs_, "h1", {"alpha", ours_.certificate()});
  there.sessions.want("h1@alpha", {here.address});
  ASSERT_TRUE(wait([&] { return !here.refused.empty(); }));
  EXPECT_THAT(here.refused.front(), HasSubstr("does not trust"));
  ASSERT_TRUE(wait([&] {
    const auto status = there.sessions.status();
    return !status.empty() && !status.front().error.empty();
  }));
  EXPECT_THAT(there.sessions.status().front().error, HasSubstr("refused our certificate"));
  EXPECT_TRUE(here.up.empty());
}

}  // namespace
}  // namespace godwit::session
