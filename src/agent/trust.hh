#pragma once
// Other fleets that this host trusts for wires to named ports of its own, and the sessions with
// their hosts (docs/ARCHITECTURE.md, "Two fleets"). Both fleets have to trust each other. Owned by
// Fleet; the name that a fleet has here is chosen here, its CA is what it is.
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "agent/events.hh"
#include "agent/log_limit.hh"
#include "agent/peers.hh"
#include "agent/trusted_ports.hh"
#include "session/sessions.hh"
#include "store/store.hh"

namespace godwit::agent {

class Trust final : public TrustedPorts {
 public:
  static constexpr std::size_t kMaxFleets = 64;
  static constexpr std::size_t kMaxPorts = 1024;  // of one fleet
  static constexpr std::size_t kMaxHosts = 64;    // of one fleet, that are dialled

  struct Handlers {
    std::function<void(session::Session&)> up;
    std::function<void(const std::string& peer)> down;
    std::function<void(PeerRequest, const nlohmann::json& body)> request;
    std::function<void(const std::string& peer, BytesView message)> wire_control;
    // Trust in a fleet for a port, or for all of them, ends: there may be wires.
    std::function<void(const std::string& fleet, const std::optional<std::string>& port)> ends;
    // The fleets whose hosts may come are others now.
    std::function<void(std::vector<crypto::TrustedFleet>)> changed;
    // The tenant of a port here; empty: there is none of that name.
    std::function<std::string(const std::string& port)> tenant_of;
  };

  Trust(os::Loop& loop, store::Store& store, Events& events, Handlers handlers);

  // Dials the hosts of all fleets that are trusted.
  void go_online(const crypto::Identity& identity);

  // API.
  // {card (of the other fleet's host, Fleet::card()), ports, as?, tenant?}; repeated, ports and
  // hosts are added.
  Result<nlohmann::json> add(const nlohmann::json& request);
  // Without `ports` the whole fleet; harmless when it is not trusted.
  Result<> remove(const std::string& fleet, const std::vector<std::string>& ports);
  // Ports of one tenant (empty: of all).
  nlohmann::json list(const std::string& tenant) const;

  // TrustedPorts
  bool is_trusted(std::string_view fleet, const std::string& port,
                  const std::string& tenant) const override;
  std::vector<std::string> up(std::string_view fleet) const override;
  std::string fingerprint(std::string_view fleet) const override;

  // By HOST@FLEET; null when the fleet is not trusted.
  session::Sessions* sessions_with(const std::string& host) const;
  std::vector<session::Sessions::Status> status() const;
  std::vector<os::Endpoint> addresses(const std::string& host) const;
  // All that were told with cards.
  std::vector<os::Endpoint> addresses() const;
  void doubt_all();
  // From the acceptor.
  void accept(std::unique_ptr<session::TlsStream> stream);

 private:
  struct Port {
    std::string name, tenant;
    bool operator==(const Port&) const = default;
  };
  struct Trusted {
    crypto::TrustedFleet fleet;
    std::map<std::string, std::vector<std::string>> hosts;  // addresses, by its own fleet's name
    std::vector<Port> ports;
    std::unique_ptr<session::Sessions> sessions{};
  };
  struct Card;

  Result<Card> read_card(const nlohmann::json& json) const;
  Result<std::string> name_for(const Card& card, const std::string& as) const;
  static nlohmann::json to_json(const Trusted& trusted);
  static Trusted from_json(const std::string& name, const nlohmann::json& json);
  void dial(Trusted& trusted);
  void tell_acceptor() const;
  session::Sessions::Handlers session_handlers();
  void refuse(const std::string& peer, const std::string& what);
  const Trusted* find(std::string_view fleet) const;

  os::Loop& loop_;
  store::Store& store_;
  Events& events_;
  Handlers handlers_;
  std::optional<crypto::Identity> identity_;
  std::map<std::string, Trusted, std::less<>> fleets_;
  LogLimit refusals_;
};

}  // namespace godwit::agent
