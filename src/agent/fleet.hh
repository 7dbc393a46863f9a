#pragma once
// This host as a member of its fleet: its certificate, the invitations it gives, the hosts it knows
// and the sessions with them. A host that has not joined has no identity and no open port; the
// first invitation makes it the founder, who keeps the fleet's CA.
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "agent/config.hh"
#include "agent/events.hh"
#include "agent/log_limit.hh"
#include "agent/peers.hh"
#include "agent/trust.hh"
#include "crypto/identity.hh"
#include "os/address_monitor.hh"
#include "os/udp.hh"
#include "session/acceptor.hh"
#include "session/join.hh"
#include "session/sessions.hh"
#include "store/store.hh"

namespace godwit::agent {

class Fleet final : public Peers {
 public:
  // Push; its body is a control message of the wire engine.
  static constexpr const char* kWireControl = "wire";
  // What the fleet brings to the rest of the agent.
  struct Handlers {
    std::function<void(session::Session&)> up;
    std::function<void(const std::string& peer)> down;
    std::function<void(PeerRequest, const nlohmann::json& body)> request;
    std::function<void(const std::string& peer, BytesView message)> wire_control;
    std::function<void(const std::string& peer, std::unique_ptr<os::ByteStream>)> lane;
    std::function<void(std::unique_ptr<session::TlsStream>)> api;  // of a user
    // Pushes that are not the fleet's own matter.
    std::function<void(const std::string& peer, const std::string& method, BytesView body)> push;
    std::function<void()> addresses_changed;  // of this host
    // Hosts of other fleets: `up` and `request` above are of our own only.
    std::function<void(session::Session&)> foreign_up;
    std::function<void(PeerRequest, const nlohmann::json& body)> foreign_request;
    // See Trust::Handlers.
    std::function<void(const std::string& fleet, const std::optional<std::string>& port)>
        trust_ends;
    std::function<std::string(const std::string& port)> tenant_of;
  };

  Fleet(os::Loop& loop, const Config& config, store::Store& store, Events& events,
        Handlers handlers);
  ~Fleet() override;

  // Goes online if this host has joined before.
  void start();

  // API.
  Result<nlohmann::json> invite(Nanoseconds ttl);
  void join(const std::string& target, std::function<void(Result<nlohmann::json>)> done);
  nlohmann::json describe() const;
  nlohmann::json hosts() const;
  // The host of that name, or all hosts of the site of that name.
  std::vector<std::string> hosts_called(const std::string& name) const;
  // What this host's operator gives to that of another fleet: public.
  Result<nlohmann::json> card() const;
  Trust& trust() { return trust_; }

  // Founds the fleet of a host that has none. Fails where the CA is not kept.
  Result<> be_founder();
  const crypto::Certificate* ca() const;  // null before joining
  session::Acceptor::Counters door() const {
    return acceptor_ ? acceptor_->counters() : session::Acceptor::Counters{};
  }
  // All hosts, this one too, and where they listen.
  std::map<std::string, std::vector<std::string>> host_addresses() const;
  // To every host with whom there is a session.
  void broadcast(const std::string& method, const nlohmann::json& body);

  // Peers. Those who are up are hosts of our own fleet; asked can be HOST@FLEET too.
  const std::string& self() const override { return config_.name; }
  bool is_up(const std::string& peer) const override;
  std::vector<std::string> up() const override;
  Nanoseconds rtt(const std::string& peer) const override;
  unsigned protocol(const std::string& peer) const override;
  void request(const std::string& peer, const std::string& method, const nlohmann::json& body,
               Reply reply, Nanoseconds timeout) override;
  Result<> push(const std::string& peer, const std::string& method, BytesView body) override;
  void open_lane(const std::string& peer, LaneReady ready) override;

  std::function<void(std::shared_ptr<os::UdpSocket>)> online;  // the host's port is open

  // Where a host is said to receive TCP and UDP.
  std::vector<os::Endpoint> addresses(const std::string& host) const;
  std::vector<os::Endpoint> own_addresses() const;
  // Connections with `peer` may be dead: they have to show that they are not.
  void doubt(const std::string& peer);

 private:
  void found();
  void go_online(crypto::Identity identity);
  session::Sessions::Handlers session_handlers();
  session::Acceptor::Handlers acceptor_handlers();
  Trust::Handlers trust_handlers();
  session::Sessions* sessions_with(const std::string& peer) const;
  session::Session* find(const std::string& peer) const;
  void serve_joins();
  void know(const session::KnownHost& host);
  bool believes(const std::string& who, const std::string& about) const;
  void gossip(session::Session& session);
  void on_request(session::Session& session, const std::string& method, const nlohmann::json& body,
                  session::Responder responder);
  session::KnownHost own_record() const;
  std::vector<session::KnownHost> known() const;
  std::set<os::Endpoint> sources() const;
  void watch_addresses();
  void save_invites();
  Result<nlohmann::json> joined(Result<session::Joined> result);

  os::Loop& loop_;
  const Config& config_;
  store::Store& store_;
  Events& events_;
  Handlers handlers_;
  Trust trust_;
  std::optional<crypto::Identity> identity_;
  std::unique_ptr<session::Sessions> sessions_;
  std::unique_ptr<session::Acceptor> acceptor_;
  std::unique_ptr<session::Invites> invites_;  // of a founder
  std::unique_ptr<session::JoinServer> join_server_;
  std::unique_ptr<session::JoinClient> joining_;
  LogLimit refusals_;
  std::set<os::Endpoint> sources_;  // what packets to other hosts leave with
  std::unique_ptr<os::AddressMonitor> monitor_;
};

}  // namespace godwit::agent
