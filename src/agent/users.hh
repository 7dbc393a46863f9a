#pragma once
// The users of the fleet's remote API: certified by the founder, which has the CA; revoked there
// too. The list of what is revoked is signed, and every host passes it on.
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "agent/config.hh"
#include "crypto/revocations.hh"
#include "store/store.hh"

namespace godwit::agent {

class Fleet;

class Users final {
 public:
  static constexpr std::size_t kMaxUsers = 1024;   // whose certificate has not ended
  static constexpr const char* kPush = "revoked";  // to peers: the signed list

  Users(const Config& config, store::Store& store, Fleet& fleet);
  // Reads the list that was kept.
  void start();

  // POST /v1/users {name, role, tenant?, ttl?, csr}: the certificate, and what else its owner
  // needs.
  Result<nlohmann::json> add(const nlohmann::json& request);
  // Those that this host has certified, as it is the founder.
  nlohmann::json list() const;
  // Revokes all certificates of this name; harmless when there are none.
  Result<> remove(const std::string& name);

  bool is_revoked(const std::string& serial) const { return revoked_.has(serial); }
  std::function<void()> changed;  // the list of what is revoked grew

  // Peers.
  const std::string& revocations() const { return pem_; }  // empty: none yet
  void learn(const std::string& peer, std::string_view pem);

 private:
  Result<> publish();
  void keep(std::string pem, crypto::Revocations revoked);

  const Config& config_;
  store::Store& store_;
  Fleet& fleet_;
  crypto::Revocations revoked_;
  std::string pem_;
};

}  // namespace godwit::agent
