#pragma once
// For tests: a host with an acceptor on a loopback port and all its sessions, in the test's loop.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "os/socket.hh"
#include "os/test_wait.hh"
#include "session/acceptor.hh"
#include "session/sessions.hh"

namespace godwit::session {

// Remembers the file descriptors of the connections that it dialled, to cut them.
struct TestHost {
  TestHost(os::Loop& the_loop, const crypto::FleetCa& ca, const std::string& name,
           LinkLimits limits = {},
           crypto::Validity validity = crypto::valid_from_now(crypto::kHostCertificateLife))
      : TestHost(the_loop, crypto::Identity::make(ca, name, validity).value(), limits) {}

  TestHost(os::Loop& the_loop, const crypto::Identity& who, LinkLimits limits = {})
      : loop(the_loop),
        identity(who),
        sessions(
            the_loop, who,
            {.on_up = [this](Session& session) { up.push_back(session.peer()); },
             .on_down = [this](const std::string& peer,
                               const std::string& reason) { down.push_back(peer + ": " + reason); },
             .on_request =
                 [this](Session& session, const std::string& method, const nlohmann::json& body,
                        Responder responder) {
                   if (method == "echo") return responder.reply({session.peer(), body});
                   if (method == "keep") return kept.push_back(std::move(responder));
                   if (method == "drop") return;
                   responder.fail("unknown method");
                 },
             .on_push =
                 [this](Session& session, const std::string& method, BytesView body) {
                   pushed.push_back(session.peer() + " " + method + " " +
                                    std::string(as_text(body)));
                 },
             .on_relayed = [this](
                               std::unique_ptr<os::ByteStream> stream,
                               const std::string& via) { acceptor.accept(std::move(stream), via); },
             .on_relaying =
                 [this](os::ByteStream&, os::ByteStream&) {
                   return [this](BytesView bytes) { relayed += as_text(bytes); };
                 }},
            limits,
            [this](const os::Endpoint& to) {
              auto stream = os::tcp_connect(loop, to);
              dialled.push_back(stream->fd().number());
              return stream;
            }),
        acceptor(
            the_loop, who,
            {.session = [this](std::unique_ptr<TlsStream> stream,
                               const std::string& via) { sessions.accept(std::move(stream), via); },
             .lane = [this](std::unique_ptr<TlsStream> stream,
                            const std::string&) { lanes.push_back(std::move(stream)); },
             .relay = [this](std::unique_ptr<TlsStream> stream,
                             const std::string&) { sessions.accept_relay_leg(std::move(stream)); },
             .join = {},
             .refused = [this](const std::string&,
                               const std::string& reason) { refused.push_back(reason); }}),
        address(acceptor.listen(os::Endpoint::loopback(0))) {}

  const std::string& name() const { return sessions.self(); }
  bool has(const std::string& peer) const { return sessions.find(peer) != nullptr; }
  std::string error(const std::string& peer) const {
    for (const auto& status : sessions.status()) {
      if (status.peer == peer) return status.error;
    }
    return {};
  }
  // The answer's text, or "error: ...".
  std::string ask(const std::string& peer, const std::string& method, const nlohmann::json& body,
                  Nanoseconds timeout = seconds(10)) {
    auto answer = std::make_shared<std::string>();
    sessions.request(
        peer, method, body,
        [answer](Result<nlohmann::json> result) {
          *answer = result ? result->dump() : "error: " + result.error().text;
        },
        timeout);
    EXPECT_TRUE(os::run_until(loop, [&] { return !answer->empty(); }));
    return *answer;
  }

  os::Loop& loop;
  crypto::Identity identity;
  std::vector<std::string> up, down, pushed, refused;
  std::vector<Responder> kept;
  std::vector<std::unique_ptr<TlsStream>> lanes;
  std::vector<int> dialled;
  std::string relayed;
  Sessions sessions;
  Acceptor acceptor;
  os::Endpoint address;
};

// Both have a session with the other, and it is the same connection.
inline bool joined(const TestHost& a, const TestHost& b) {
  const Session* there = a.sessions.find(b.name());
  const Session* back = b.sessions.find(a.name());
  return there != nullptr && back != nullptr && there->id() == back->id();
}

}  // namespace godwit::session
