#pragma once
// The routed data centre that guests keep their addresses in (translate/fabric.hh), as an operator
// told one host of the fleet: each tells the others, the newest version wins.
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "agent/events.hh"
#include "agent/peers.hh"
#include "store/store.hh"
#include "translate/fabric.hh"

namespace godwit::agent {

class Fabrics final {
 public:
  Fabrics(store::Store& store, Peers& peers, Events& events);
  void start();

  // API. The file as JSON; null: there is none any more.
  Result<nlohmann::json> set(const nlohmann::json& file);
  // {version, file}; file null: there is none.
  nlohmann::json describe() const;
  // Null: none was told. Moves keep theirs when another comes.
  std::shared_ptr<const translate::Fabric> get() const { return fabric_; }

  // fabric.exchange
  void on_request(const PeerRequest& request, const nlohmann::json& body);
  void on_session_up(const std::string& peer);

 private:
  static Result<std::shared_ptr<const translate::Fabric>> read(const nlohmann::json& file);
  Result<> take(std::uint64_t version, const nlohmann::json& file);
  bool is_newer(std::uint64_t version, const nlohmann::json& file) const;
  void exchange(const std::string& peer);

  store::Store& store_;
  Peers& peers_;
  Events& events_;
  std::uint64_t version_ = 0;
  nlohmann::json file_;
  std::shared_ptr<const translate::Fabric> fabric_;
};

}  // namespace godwit::agent
