#pragma once
// Guests elsewhere whose correspondents are behind this host (strategy endpoint): what their hosts
// agreed with this one about connections that outlive a move, and where their packets go since.
//
//   flow.serves   which of these addresses are here
//   flow.stage    by the host where the guest is at home: the connections, labelled with a secret,
//                 and the guest's addresses on the way from where it will be
//   flow.update   by the host where it is now: it is there; proved with the secret
//   flow.end      likewise: none of them lives any more
//
// Nobody redirects a connection who has not the secret, and none gets one agreed who is not where
// the guest is at home or was last. docs/protocol/endpoint.md. Control thread.
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "agent/endpoint_kernel.hh"
#include "agent/fabrics.hh"
#include "agent/peers.hh"
#include "store/store.hh"

namespace godwit::agent {

class Associations final {
 public:
  struct Context {
    const Config& config;
    store::Store& store;
    Network& network;
    EndpointKernel& kernel;
    const Fabrics& fabrics;
    Events& events;
  };
  explicit Associations(const Context& context) : context_(context) {}

  void start();
  // `peer` may be this host itself.
  Result<nlohmann::json> answer(const std::string& peer, const std::string& method,
                                const nlohmann::json& body);
  // [{guest, host, addresses, correspondents, direct}]
  nlohmann::json describe() const;

 private:
  struct Agreed {
    Epoch epoch = 0;
    std::string by;  // who may take it back
    Bytes secret{};
    std::map<Ip, Ip> on_the_way{};
  };
  struct Association {
    std::string guest, name;  // the uplink's id, and for people
    std::string holder;       // the host where the guest is
    std::set<Ip> correspondents{};
    std::optional<Agreed> staged{}, current{};
  };

  Result<nlohmann::json> serves(const nlohmann::json& body) const;
  Result<nlohmann::json> stage(const std::string& peer, const nlohmann::json& body);
  Result<nlohmann::json> update(const std::string& peer, const nlohmann::json& body);
  Result<nlohmann::json> end(const std::string& peer, const nlohmann::json& body);
  Result<nlohmann::json> undo(const std::string& peer, const nlohmann::json& body);
  std::set<Ip> here() const;
  bool speaks_for(const std::string& peer, const Association* known, const Ip& address) const;
  Result<> may_stage(const std::string& peer, const Association* known,
                     const std::map<Ip, Ip>& on_the_way) const;
  Result<> may_lead(const std::string& guest, const std::map<Ip, Ip>& on_the_way) const;
  static os::MovedRules rules_of(const Association& association);
  Result<> lead(const Association& association);
  Result<> take(const Association& association);
  std::vector<os::Connection> ours(const std::vector<os::Connection>& connections,
                                   const std::map<Ip, Ip>& on_the_way) const;
  static void label(const Association& association, const std::vector<os::Connection>& ours);
  void forget(const std::string& guest);
  static nlohmann::json to_json(const Agreed& agreed);
  static nlohmann::json to_json(const Association& association);
  static Agreed agreed(const nlohmann::json& json);
  static Association association(const nlohmann::json& json);

  Context context_;
  std::map<std::string, Association> associations_;  // by guest
};

}  // namespace godwit::agent
