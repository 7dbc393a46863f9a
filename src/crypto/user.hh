#pragma once
// People and programs that use a fleet's agents from afar. A user's certificate names them once, as
// SAN URI "godwit:ROLE/TENANT/NAME" (TENANT '*': every tenant); a host's URI never has that form,
// so neither can pass for the other. Roles and tenants are in the certificate, not in a list that
// agents would have to agree on.
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "crypto/identity.hh"

namespace godwit::crypto {

enum class UserRole : std::uint8_t {
  viewer,    // reads
  operator_  // reads and changes
};
std::string_view to_text(UserRole role);  // "viewer", "operator"
std::optional<UserRole> user_role(std::string_view text);

struct User {
  std::string name;
  UserRole role = UserRole::viewer;
  std::string tenant;  // empty: every tenant
  bool operator==(const User&) const = default;
};
std::string user_uri(const User& user);
std::optional<User> parse_user_uri(std::string_view uri);

// Shorter than a host's: a user's key lies on somebody's laptop.
constexpr std::chrono::days kUserCertificateLife{30};

// What a user holds: key, certificate, the fleet's CA, and where the fleet's hosts were when it was
// made. One PEM file, of which every TLS tool can use the parts; the hosts are lines of text in
// front, "# host e1 192.0.2.1:4747".
class UserIdentity final {
 public:
  using Hosts = std::map<std::string, std::vector<std::string>>;

  // Refused, with the reason, when the parts do not belong together.
  static Result<UserIdentity> make(PrivateKey key, Certificate certificate, Certificate ca,
                                   Hosts hosts);
  static Result<UserIdentity> parse(std::string_view pem);
  // Refused when others could read the file.
  static Result<UserIdentity> load(const std::filesystem::path& file);
  std::string pem() const;

  const User& user() const { return user_; }
  const Hosts& hosts() const { return hosts_; }
  std::string fleet() const { return ca_.common_name(); }
  const PrivateKey& key() const { return key_; }
  const Certificate& certificate() const { return certificate_; }
  const Certificate& ca() const { return ca_; }

 private:
  UserIdentity(PrivateKey key, Certificate certificate, Certificate ca, Hosts hosts, User user)
      : key_(std::move(key)),
        certificate_(std::move(certificate)),
        ca_(std::move(ca)),
        hosts_(std::move(hosts)),
        user_(std::move(user)) {}
  PrivateKey key_;
  Certificate certificate_;
  Certificate ca_;
  Hosts hosts_;
  User user_;
};

}  // namespace godwit::crypto
