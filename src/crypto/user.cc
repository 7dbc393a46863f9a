#include "crypto/user.hh"

#include <sstream>

#include "base/id.hh"
#include "crypto/openssl.hh"
#include "crypto/secret_file.hh"

namespace godwit::crypto {
namespace {

constexpr std::string_view kScheme = "godwit:";
constexpr std::string_view kEveryTenant = "*";
constexpr std::string_view kCertificateMark = "-----BEGIN CERTIFICATE-----";

UserIdentity::Hosts hosts_in(std::string_view text) {
  UserIdentity::Hosts hosts;
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string hash, kind, name, address;
    if (!(words >> hash >> kind >> name) || hash != "#" || kind != "host") continue;
    while (words >> address) hosts[name].push_back(address);
  }
  return hosts;
}

}  // namespace

std::string_view to_text(UserRole role) {
  return role == UserRole::operator_ ? "operator" : "viewer";
}

std::optional<UserRole> user_role(std::string_view text) {
  if (text == "viewer") return UserRole::viewer;
  if (text == "operator") return UserRole::operator_;
  return std::nullopt;
}

std::string user_uri(const User& user) {
  return fmt::format("{}{}/{}/{}", kScheme, to_text(user.role),
                     user.tenant.empty() ? kEveryTenant : user.tenant, user.name);
}

std::optional<User> parse_user_uri(std::string_view uri) {
  if (!uri.starts_with(kScheme)) return std::nullopt;
  uri.remove_prefix(kScheme.size());
  const std::size_t first = uri.find('/');
  const std::size_t second = first == std::string_view::npos ? first : uri.find('/', first + 1);
  if (second == std::string_view::npos) return std::nullopt;
  const auto role = user_role(uri.substr(0, first));
  const std::string_view tenant = uri.substr(first + 1, second - first - 1);
  const std::string_view name = uri.substr(second + 1);
  if (!role || !is_valid_name(name)) return std::nullopt;
  if (tenant == kEveryTenant) return User{std::string(name), *role, {}};
  if (!is_valid_name(tenant)) return std::nullopt;
  return User{std::string(name), *role, std::string(tenant)};
}

Result<UserIdentity> UserIdentity::make(PrivateKey key, Certificate certificate, Certificate ca,
                                        Hosts hosts) {
  auto user = certificate.user();
  if (!user) return std::unexpected(user.error());
  if (X509_check_private_key(certificate.native(), key.native()) != 1) {
    ERR_clear_error();
    return fail("the certificate of {} does not belong to the key beside it", user->name);
  }
  if (X509_verify(certificate.native(), X509_get0_pubkey(ca.native())) != 1) {
    ERR_clear_error();
    return fail("the certificate of {} was not signed by the CA of fleet {}", user->name,
                ca.common_name());
  }
  return UserIdentity(std::move(key), std::move(certificate), std::move(ca), std::move(hosts),
                      std::move(*user));
}

Result<UserIdentity> UserIdentity::parse(std::string_view pem) {
  const std::size_t second = pem.rfind(kCertificateMark);
  if (second == std::string_view::npos) {
    return fail("not an identity that `godwit user add` wrote: it has no certificate");
  }
  auto key = PrivateKey::from_pem(pem);
  if (!key) return std::unexpected(key.error());
  auto certificate = Certificate::from_pem(pem);
  if (!certificate) return std::unexpected(certificate.error());
  auto ca = Certificate::from_pem(pem.substr(second));
  if (!ca) return std::unexpected(ca.error());
  return make(std::move(*key), std::move(*certificate), std::move(*ca), hosts_in(pem));
}

Result<UserIdentity> UserIdentity::load(const std::filesystem::path& file) {
  const auto text = read_file(file, kSecretMode);
  if (!text) return std::unexpected(text.error());
  auto identity = parse(*text);
  if (!identity) return fail("{}: {}", file.string(), identity.error().text);
  return identity;
}

std::string UserIdentity::pem() const {
  std::string text = fmt::format(
      "# Godwit: {} is {} of {} in fleet {}, until {}. Keep this file to yourself.\n", user_.name,
      to_text(user_.role), user_.tenant.empty() ? "every tenant" : "tenant " + user_.tenant,
      fleet(), to_text(certificate_.not_after()));
  for (const auto& [name, addresses] : hosts_) {
    text += "# host " + name;
    for (const auto& address : addresses) text += " " + address;
    text += '\n';
  }
  return text + key_.pem() + certificate_.pem() + ca_.pem();
}

}  // namespace godwit::crypto
