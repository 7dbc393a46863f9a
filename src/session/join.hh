#pragma once
// How a host becomes a member (ALPN godwit-join/1, docs/protocol/session.md):
//
//   joining host                                inviting host (holds the CA's key)
//     TLS without a client certificate; the server's CA must have the invited hash
//     request join {secret, csr, host, site, port, addresses}  -->
//                                              <--  reply {certificate, ca, hosts} or error
//
// Its key never leaves the joining host. The invitation is used up only when a certificate goes
// out.
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "crypto/identity.hh"
#include "os/endpoint.hh"
#include "os/loop.hh"
#include "session/dial.hh"
#include "session/frame.hh"
#include "session/invite.hh"

namespace godwit::session {

constexpr std::size_t kMaxJoins = 32;  // at a time, on the inviting host
constexpr std::size_t kMaxJoinBody = 64 * 1024;
constexpr std::size_t kMaxKnownHosts = 4096;
constexpr Nanoseconds kJoinTimeout = seconds(15);

// A member of the fleet as hosts tell each other of it.
struct KnownHost {
  std::string name;
  std::string site;
  std::vector<std::string> addresses;  // "10.0.0.1:4747"
  bool operator==(const KnownHost&) const = default;
};

class JoinServer final {
 public:
  struct Hooks {
    // Whether this host may join: its name must be free. An error's text goes to the joining host.
    // Called before the certificate is made.
    std::move_only_function<Result<>(const KnownHost& joining)> admit;
    // The certificate was made and the invitation used up: store both (records()) before
    // returning.
    std::move_only_function<Result<>(const KnownHost& joined)> joined;
    // All hosts that the new one should know, ourselves included.
    std::move_only_function<std::vector<KnownHost>()> hosts;
  };

  JoinServer(os::Loop& loop, crypto::FleetCa ca, Invites& invites, Hooks hooks);
  ~JoinServer();

  // From the Acceptor.
  void accept(std::unique_ptr<TlsStream> stream);

 private:
  struct Visit {
    std::unique_ptr<TlsStream> stream;
    FrameReader reader{kMaxJoinBody};
    bool answered = false;
    os::Loop::Timer timeout;
  };

  void on_readable(Visit& visit);
  Result<std::string> serve(const Frame& frame, const std::string& peer_address);
  void answer(Visit& visit, std::uint64_t id, const Result<std::string>& body);
  void drop(Visit& visit);

  os::Loop& loop_;
  crypto::FleetCa ca_;
  Invites& invites_;
  Hooks hooks_;
  std::list<Visit> visits_;
};

struct Joined {
  crypto::Identity identity;
  std::vector<KnownHost> hosts;
};

// One attempt to join; destroying it gives up.
class JoinClient final {
 public:
  struct Request {
    InviteToken token;
    std::vector<os::Endpoint> at;  // where the inviting host listens; all are tried
    std::string host;              // our name
    std::string site;
    std::uint16_t port = 0;              // where we listen: added to the address we are seen from
    std::vector<std::string> addresses;  // more of ours, "10.0.0.1:4747"
  };
  using Done = std::move_only_function<void(Result<Joined>)>;

  // `done` is called once, later; it may destroy the JoinClient.
  JoinClient(os::Loop& loop, Request request, Done done);
  ~JoinClient();

 private:
  void on_reached(Result<Dial::Reached> reached);
  void on_readable();
  void finish(Result<Joined> result);
  Result<Joined> take_answer(const Frame& frame) const;

  os::Loop& loop_;
  Request request_;
  Done done_;
  crypto::PrivateKey key_;
  Network network_;
  std::unique_ptr<Dial> dial_;
  std::unique_ptr<TlsStream> stream_;
  FrameReader reader_;
  os::Loop::Timer deadline_;
};

}  // namespace godwit::session
