#include "agent/users.hh"

#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>

#include "agent/fleet.hh"
#include "agent/records.hh"
#include "crypto/user.hh"

namespace godwit::agent {
namespace {

constexpr std::chrono::seconds kMaxTtl = crypto::kHostCertificateLife;
constexpr std::chrono::minutes kMinTtl{1};

// kind "user", by serial: one certificate.
bool is_over(const nlohmann::json& record) {
  return record.value("expires", std::int64_t{0}) <= crypto::wall_now().time_since_epoch().count();
}

Result<std::chrono::seconds> ttl_of(const nlohmann::json& request) {
  if (!request.contains("ttl")) return crypto::kUserCertificateLife;
  const auto ttl = parse_duration(text_field_or(request, "ttl", ""));
  if (!ttl) return std::unexpected(ttl.error());
  const auto whole = duration_cast<std::chrono::seconds>(*ttl);
  if (whole < kMinTtl || whole > kMaxTtl) {
    return fail("a user's certificate is good for {} to {}", to_text(Nanoseconds(kMinTtl)),
                to_text(Nanoseconds(kMaxTtl)));
  }
  return whole;
}

Result<crypto::User> user_of(const nlohmann::json& request) {
  const auto name = text_field(request, "name");
  if (!name) return std::unexpected(name.error());
  const std::string tenant = text_field_or(request, "tenant", "");
  const auto role = crypto::user_role(text_field_or(request, "role", ""));
  if (!role) return fail("'role' is operator or viewer");
  return crypto::User{.name = *name, .role = *role, .tenant = tenant};
}

}  // namespace

Users::Users(const Config& config, store::Store& store, Fleet& fleet)
    : config_(config), store_(store), fleet_(fleet) {}

void Users::start() {
  const auto kept = store_.find("revocations", "list");
  if (kept) learn("", kept->value("pem", ""));
}

Result<nlohmann::json> Users::add(const nlohmann::json& request) {
  const auto user = user_of(request);
  if (!user) return std::unexpected(user.error());
  const auto ttl = ttl_of(request);
  if (!ttl) return std::unexpected(ttl.error());
  const auto csr = crypto::CertificateRequest::from_pem(text_field_or(request, "csr", ""));
  if (!csr) return std::unexpected(csr.error());
  if (const auto founder = fleet_.be_founder(); !founder) return std::unexpected(founder.error());
  for (const auto& old : store_.list("user")) {
    if (is_over(old.body)) store_.erase("user", old.key);
  }
  if (store_.list("user").size() >= kMaxUsers) return fail("there are {} users already", kMaxUsers);
  const auto ca = crypto::FleetCa::load(config_.state_dir);
  if (!ca) return std::unexpected(ca.error());
  const auto certificate = ca->sign_user(*csr, *user, crypto::valid_from_now(*ttl));
  if (!certificate) return std::unexpected(certificate.error());
  nlohmann::json record = {{"name", user->name},
                           {"role", to_text(user->role)},
                           {"tenant", user->tenant},
                           {"serial", certificate->serial()},
                           {"expires", certificate->not_after().time_since_epoch().count()},
                           {"revoked", false}};
  store_.put("user", certificate->serial(), record);
  record["certificate"] = certificate->pem();
  record["ca"] = ca->certificate().pem();
  record["hosts"] = fleet_.host_addresses();
  return record;
}

nlohmann::json Users::list() const {
  nlohmann::json all = nlohmann::json::array();
  for (const auto& document : store_.list("user")) {
    if (!is_over(document.body)) all.push_back(document.body);
  }
  return all;
}

Result<> Users::remove(const std::string& name) {
  bool any = false;
  for (auto document : store_.list("user")) {
    if (document.body.value("name", "") != name || document.body.value("revoked", false)) continue;
    document.body["revoked"] = true;
    store_.put("user", document.key, document.body);
    any = true;
  }
  return any ? publish() : Result<>{};
}

// Certificates that have ended by themselves need not be listed.
Result<> Users::publish() {
  const auto ca = crypto::FleetCa::load(config_.state_dir);
  if (!ca) return std::unexpected(ca.error());
  std::vector<std::string> serials;
  for (const auto& document : store_.list("user")) {
    if (document.body.value("revoked", false) && !is_over(document.body)) {
      serials.push_back(document.key);
    }
  }
  std::string pem = ca->revoke(serials, revoked_.number() + 1);
  auto list = crypto::Revocations::from_pem(pem, ca->certificate());
  if (!list) return std::unexpected(list.error());
  keep(std::move(pem), *std::move(list));
  return {};
}

void Users::keep(std::string pem, crypto::Revocations revoked) {
  store_.put("revocations", "list", {{"pem", pem}});
  pem_ = std::move(pem);
  revoked_ = std::move(revoked);
  fleet_.broadcast(kPush, {{"pem", pem_}});
  if (changed) changed();
}

void Users::learn(const std::string& peer, std::string_view pem) {
  const crypto::Certificate* ca = fleet_.ca();
  if (ca == nullptr) return;
  auto list = crypto::Revocations::from_pem(pem, *ca);
  if (!list) return spdlog::warn("host {}: {}", peer, list.error().text);
  if (list->number() > revoked_.number()) keep(std::string(pem), *std::move(list));
}

}  // namespace godwit::agent
