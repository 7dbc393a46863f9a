#pragma once
// All sessions of one agent, by the peer's host name. Wanted peers stay connected: dialled at all
// their addresses, then through other peers; dialled again with exponential backoff and jitter
// when the session is lost. Peers that connect by themselves are accepted as well: the fleet's CA
// vouched for them. Lives in its loop's thread; callbacks may call back into it but not destroy
// it.
//
// Hosts of a trusted fleet have a Sessions of their own, so that nothing goes from the one to the
// other by oversight; it relays nothing.
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "crypto/identity.hh"
#include "session/peer_link.hh"
#include "session/relay.hh"

namespace godwit::session {

constexpr std::size_t kMaxPeers = 4096;       // hosts of one fleet that may be connected
constexpr std::size_t kMaxForeignPeers = 64;  // of another fleet
constexpr std::size_t kMaxLaneDials = 64;
// For the answer of a peer in doubt: some round trips, and TCP's first retransmission.
constexpr Nanoseconds kDoubtPatience = seconds(2);

class Sessions final : private PeerLinkOwner {
 public:
  struct Handlers {
    // The session is up. After a replacement (hourly new handshake, relayed to direct) on_down
    // comes first, and requests in flight on the old connection are still answered.
    std::move_only_function<void(Session&)> on_up;
    std::move_only_function<void(const std::string& peer, const std::string& reason)> on_down;
    std::move_only_function<void(Session&, const std::string& method, const nlohmann::json& body,
                                 Responder)>
        on_request;
    // `body`: JSON or bytes as the method says; valid during the call. See parse_json_body().
    std::move_only_function<void(Session&, const std::string& method, BytesView body)> on_push;
    // A peer reaches us through the relay `via`: hand it to Acceptor::accept(stream, via).
    std::move_only_function<void(std::unique_ptr<os::ByteStream>, const std::string& via)>
        on_relayed;
    // May be empty. A connection of two other hosts begins to run through us: what it gives is told
    // of all bytes (ciphertext) that pass.
    std::move_only_function<Relay::Passing(os::ByteStream&, os::ByteStream&)> on_relaying;
  };

  struct Status {
    std::string peer;
    enum class State { down, connecting, up } state = State::down;
    Nanoseconds rtt{0};
    std::string via;        // relaying host; empty when direct or not up
    std::string address;    // of the connection
    unsigned protocol = 0;  // 0 when not up
    std::string version;    // the peer's; empty when not up or not told
    std::string error;      // why it is not up
    bool wanted = false;
  };

  using LaneDone = Dial::Done;

  // `connect`: the seam for tests; TCP when empty.
  Sessions(os::Loop& loop, const crypto::Identity& identity, Handlers handlers,
           LinkLimits limits = {}, decltype(Network::connect) connect = {});
  // With hosts of another fleet, which are called HOST@FLEET. Its handlers get what hosts of
  // ours would ask too: what is none of their business is for them to refuse.
  Sessions(os::Loop& loop, const crypto::Identity& identity, const crypto::TrustedFleet& fleet,
           Handlers handlers, LinkLimits limits = {}, decltype(Network::connect) connect = {});
  ~Sessions() override;

  const std::string& self() const { return self_; }

  void want(const std::string& peer, std::vector<os::Endpoint> addresses);
  void forget(const std::string& peer);
  // Connections with `peer`, and through it, have to show soon that they live: its path changed.
  void doubt(const std::string& peer);
  // Null when it is not up.
  Session* find(const std::string& peer) const;
  std::vector<Status> status() const;

  // As Session::request; fails at once, before this returns, when the session is down.
  void request(const std::string& peer, const std::string& method, const nlohmann::json& body,
               Session::Reply reply, Nanoseconds timeout);
  // Opens a lane (ALPN godwit-lane/1) to a wanted or connected peer, by the way its session goes.
  void open_lane(const std::string& peer, LaneDone done);

  // What the Acceptor dispatches.
  void accept(std::unique_ptr<TlsStream> stream, std::string via);
  void accept_relay_leg(std::unique_ptr<TlsStream> stream);

 private:
  void on_link_up(Session& session) override;
  void on_link_down(const std::string& peer, const std::string& reason) override;
  void on_link_request(Session& session, const std::string& method, const nlohmann::json& body,
                       Responder responder) override;
  void on_link_push(Session& session, const std::string& method, BytesView body) override;
  std::unique_ptr<Dial> dial_link(const std::string& peer,
                                  const std::vector<os::Endpoint>& addresses, bool relays,
                                  Dial::Done done) override;

  PeerLink* link(const std::string& peer) const;
  PeerLink& make_link(const std::string& peer);
  std::unique_ptr<Dial> dial(const std::string& peer, const char* alpn,
                             std::vector<os::Endpoint> addresses, std::vector<std::string> relays,
                             bool relays_first, Dial::Done done);
  void dial_for(const std::string& peer, const char* alpn, std::vector<std::string> relays,
                bool relays_first, Dial::Done done);
  std::vector<std::string> relays_to(const std::string& peer) const;
  Relay::Hooks relay_hooks();

  struct Foreign {
    bool we_choose = false;  // which connection is the session
  };
  Sessions(os::Loop& loop, const crypto::Identity& identity, crypto::TlsContext tls,
           std::optional<Foreign> foreign, Handlers handlers, LinkLimits limits,
           decltype(Network::connect) connect);

  os::Loop& loop_;
  const std::string self_;
  const std::string instance_;            // of this run of the agent
  const std::optional<Foreign> foreign_;  // the peers are of another fleet
  Network network_;
  Handlers handlers_;
  const LinkLimits limits_;
  Relay relay_;
  std::map<std::string, std::unique_ptr<PeerLink>> links_;
  std::map<std::uint64_t, std::unique_ptr<Dial>> dials_;  // of lanes and legs
  std::uint64_t next_dial_ = 1;
};

}  // namespace godwit::session
