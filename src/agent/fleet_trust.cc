// What the fleet brings to trust in other fleets: this host's card, its acceptor, and who is meant
// by HOST@FLEET.
#include <nlohmann/json.hpp>

#include "agent/fleet.hh"
#include "base/host_name.hh"

namespace godwit::agent {

Trust::Handlers Fleet::trust_handlers() {
  return {
      .up = [this](session::Session& session) { handlers_.foreign_up(session); },
      .down = [this](const std::string& peer) { handlers_.down(peer); },
      .request =
          [this](PeerRequest request, const nlohmann::json& body) {
            handlers_.foreign_request(std::move(request), body);
          },
      .wire_control = [this](const std::string& peer,
                             BytesView message) { handlers_.wire_control(peer, message); },
      .ends = [this](const std::string& fleet,
                     const std::optional<std::string>& port) { handlers_.trust_ends(fleet, port); },
      .changed =
          [this](std::vector<crypto::TrustedFleet> fleets) { acceptor_->trust(std::move(fleets)); },
      .tenant_of = [this](const std::string& port) { return handlers_.tenant_of(port); }};
}

Result<nlohmann::json> Fleet::card() const {
  if (!identity_) {
    return fail("host {} has not joined a fleet: godwit host invite founds one", config_.name);
  }
  const auto own = own_record();
  if (own.addresses.empty()) {
    return fail("host {} has no address that others could reach: give godwitd an --address",
                config_.name);
  }
  return nlohmann::json{{"fleet", identity_->fleet()},
                        {"host", own.name},
                        {"addresses", own.addresses},
                        {"ca", identity_->ca().pem()},
                        {"fingerprint", to_hex(identity_->ca().fingerprint())}};
}

session::Sessions* Fleet::sessions_with(const std::string& peer) const {
  return is_foreign(peer) ? trust_.sessions_with(peer) : sessions_.get();
}

session::Session* Fleet::find(const std::string& peer) const {
  const session::Sessions* sessions = sessions_with(peer);
  return sessions == nullptr ? nullptr : sessions->find(peer);
}

}  // namespace godwit::agent
