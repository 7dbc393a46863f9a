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
// Correspondents may be guests that move, too: what is agreed goes with them to their next host,
// and whoever asks about it here is told to ask there.
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
  // The host that has proved to have the guest with this address.
  std::optional<std::string> holder_of(const Ip& address) const;

  // These correspondents go to `host`: what is agreed about those that they have connections with.
  Result<nlohmann::json> pass_on(const std::set<Ip>& correspondents, const std::string& host);
  // They did not go there after all.
  void take_back(const std::set<Ip>& correspondents);
  // They are about to go elsewhere; of these some have, though their uplinks may be here for a
  // while yet. In place of those before.
  void leave(std::set<Ip> leaving, std::set<Ip> left) {
    leaving_ = std::move(leaving);
    left_ = std::move(left);
  }
  // Where they come: that, with their connections as the guests here see them.
  Result<> adopt(const nlohmann::json& passed, const std::set<Ip>& correspondents,
                 const std::vector<os::Connection>& connections);
  // They have none of those any more.
  void forget_adopted(const std::set<Ip>& correspondents);

  // [{guest, host, addresses, correspondents, direct, agreed_with}]
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
    std::string with;         // the host that agreed, from where the correspondents came
    std::set<Ip> correspondents{};
    std::map<std::string, std::set<Ip>>
        passed{};  // to these hosts, where those correspondents went
    std::optional<Agreed> staged{}, current{};
  };

  Result<nlohmann::json> serves(const nlohmann::json& body) const;
  Result<nlohmann::json> stage(const std::string& peer, const nlohmann::json& body);
  Result<nlohmann::json> update(const std::string& peer, const nlohmann::json& body);
  Result<nlohmann::json> end(const std::string& peer, const nlohmann::json& body);
  Result<nlohmann::json> undo(const std::string& peer, const nlohmann::json& body);
  std::string key_of(const nlohmann::json& body) const;
  std::string key_of(const std::string& guest, const std::string& with) const;
  std::set<Ip> here() const;
  bool stays(const Ip& correspondent) const;
  bool speaks_for(const std::string& peer, const std::string& guest, const Ip& address) const;
  Result<> may_stage(const std::string& peer, const std::string& guest,
                     const std::map<Ip, Ip>& on_the_way) const;
  Result<> may_lead(const std::string& guest, const std::map<Ip, Ip>& on_the_way) const;
  Result<> may_adopt(const Association& passed, const std::set<Ip>& correspondents) const;
  static void here_again(Association& association, const std::set<Ip>& correspondents);
  static void merge(Association& known, const Association& passed);
  static os::MovedRules rules_of(const Association& association);
  Result<> lead(const Association& association);
  Result<> take(const Association& association);
  std::vector<os::Connection> ours(const std::vector<os::Connection>& connections,
                                   const std::map<Ip, Ip>& on_the_way) const;
  static void label(const Association& association, const std::vector<os::Connection>& ours);
  void forget(const std::string& key);
  static nlohmann::json to_json(const Agreed& agreed);
  static nlohmann::json to_json(const Association& association);
  static Agreed agreed(const nlohmann::json& json);
  static Association association(const nlohmann::json& json);

  Context context_;
  std::map<std::string, Association> associations_;  // by key_of()
  std::set<Ip> leaving_, left_;
};

}  // namespace godwit::agent
