#include "crypto/identity.hh"

#include <openssl/rand.h>

#include <array>

#include "base/check.hh"
#include "base/id.hh"
#include "crypto/openssl.hh"
#include "crypto/secret_file.hh"
#include "crypto/user.hh"

namespace godwit::crypto {
namespace {

constexpr int kSerialBytes = 16;  // random, as CA/Browser Forum baseline 7.1 asks (64 bits or more)

void set_time(ASN1_TIME* to, WallTime time) {
  CHECK(ASN1_TIME_set(to, time.time_since_epoch().count()) != nullptr);
}

void set_serial(X509* certificate) {
  std::array<unsigned char, kSerialBytes> raw;
  CHECK(RAND_bytes(raw.data(), kSerialBytes) == 1);
  raw[0] &= 0x7f;  // positive (RFC 5280, 4.1.2.2)
  BIGNUM* number = BN_bin2bn(raw.data(), kSerialBytes, nullptr);
  CHECK(number != nullptr);
  CHECK(BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate)) != nullptr);
  BN_free(number);
}

void set_name(X509_NAME* name, int field, std::string_view text) {
  const auto* raw = reinterpret_cast<const unsigned char*>(text.data());
  CHECK(X509_NAME_add_entry_by_NID(name, field, MBSTRING_UTF8, raw, static_cast<int>(text.size()),
                                   -1, 0) == 1);
}

void add_extension(X509* certificate, X509* issuer, int kind, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const X509ExtensionPtr extension(X509V3_EXT_conf_nid(nullptr, &context, kind, value.c_str()));
  CHECK(extension != nullptr, "{}: {}", value, openssl_reason());
  CHECK(X509_add_ext(certificate, extension.get(), -1) == 1);
}

// A certificate for `key` with everything set but subject, issuer, extensions and signature.
X509Ptr blank_certificate(EVP_PKEY* key, Validity validity) {
  X509Ptr certificate(X509_new());
  CHECK(certificate != nullptr && X509_set_version(certificate.get(), X509_VERSION_3) == 1);
  set_serial(certificate.get());
  set_time(X509_getm_notBefore(certificate.get()), validity.from);
  set_time(X509_getm_notAfter(certificate.get()), validity.until);
  CHECK(X509_set_pubkey(certificate.get(), key) == 1);
  return certificate;
}

// Ed25519 hashes by itself: no digest is named when signing.
void sign_with(X509* certificate, const PrivateKey& key) {
  CHECK(X509_sign(certificate, key.native(), nullptr) > 0, "{}", openssl_reason());
}

Result<Certificate> load_certificate(const std::filesystem::path& path) {
  const auto text = read_file(path, 0777);
  if (!text) return std::unexpected(text.error());
  auto certificate = Certificate::from_pem(*text);
  if (!certificate) return fail("{}: {}", path.string(), certificate.error().text);
  return certificate;
}

Result<PrivateKey> load_key(const std::filesystem::path& path) {
  const auto text = read_file(path, kSecretMode);
  if (!text) return std::unexpected(text.error());
  auto key = PrivateKey::from_pem(*text);
  if (!key) return fail("{}: {}", path.string(), key.error().text);
  return key;
}

}  // namespace

Validity valid_from_now(std::chrono::seconds life) {
  const WallTime now = wall_now();
  return {now - kClockSkew, now + life};
}

FleetCa FleetCa::make(std::string_view fleet, Validity validity) {
  CHECK(is_valid_name(fleet), "fleet '{}'", fleet);
  PrivateKey key = PrivateKey::make();
  const X509Ptr certificate = blank_certificate(key.native(), validity);
  set_name(X509_get_subject_name(certificate.get()), NID_organizationName, "Godwit fleet");
  set_name(X509_get_subject_name(certificate.get()), NID_commonName, fleet);
  X509_set_issuer_name(certificate.get(), X509_get_subject_name(certificate.get()));
  add_extension(certificate.get(), certificate.get(), NID_basic_constraints,
                "critical,CA:TRUE,pathlen:0");
  add_extension(certificate.get(), certificate.get(), NID_key_usage, "critical,keyCertSign");
  add_extension(certificate.get(), certificate.get(), NID_subject_key_identifier, "hash");
  sign_with(certificate.get(), key);
  return {std::move(key), Certificate::from_native(certificate.get())};
}

Result<Certificate> FleetCa::sign(const CertificateRequest& request, std::string_view host,
                                  Validity validity) const {
  if (!is_valid_name(host)) return fail("cannot certify '{}': not a valid host name", host);
  return sign_leaf(request, host, "serverAuth,clientAuth",
                   fmt::format("URI:{},DNS:{}", host_uri(host), host), validity);
}

Result<Certificate> FleetCa::sign_user(const CertificateRequest& request, const User& user,
                                       Validity validity) const {
  if (parse_user_uri(user_uri(user)) != user) {
    return fail("cannot certify '{}' of tenant '{}': use 1 to 63 of a-z, 0-9 and '-'", user.name,
                user.tenant);
  }
  return sign_leaf(request, user.name, "clientAuth", "URI:" + user_uri(user), validity);
}

Certificate FleetCa::sign_leaf(const CertificateRequest& request, std::string_view name,
                               const std::string& usage, const std::string& alternative,
                               Validity validity) const {
  X509* issuer = certificate_.native();
  const X509Ptr certificate = blank_certificate(X509_REQ_get0_pubkey(request.native()), validity);
  set_name(X509_get_subject_name(certificate.get()), NID_commonName, name);
  X509_set_issuer_name(certificate.get(), X509_get_subject_name(issuer));
  add_extension(certificate.get(), issuer, NID_basic_constraints, "critical,CA:FALSE");
  add_extension(certificate.get(), issuer, NID_key_usage, "critical,digitalSignature");
  add_extension(certificate.get(), issuer, NID_ext_key_usage, usage);
  add_extension(certificate.get(), issuer, NID_subject_key_identifier, "hash");
  add_extension(certificate.get(), issuer, NID_authority_key_identifier, "keyid:always");
  add_extension(certificate.get(), issuer, NID_subject_alt_name, alternative);
  sign_with(certificate.get(), key_);
  return Certificate::from_native(certificate.get());
}

Result<> FleetCa::save(const std::filesystem::path& directory) const {
  auto wrote = write_file(directory / "ca.key", key_.pem(), kSecretMode);
  return wrote ? write_file(directory / "ca.pem", certificate_.pem(), kPublicMode) : wrote;
}

Result<FleetCa> FleetCa::load(const std::filesystem::path& directory) {
  auto key = load_key(directory / "ca.key");
  if (!key) return std::unexpected(key.error());
  auto certificate = load_certificate(directory / "ca.pem");
  if (!certificate) return std::unexpected(certificate.error());
  if (X509_check_private_key(certificate->native(), key->native()) != 1) {
    ERR_clear_error();
    return fail("{}: ca.key does not belong to ca.pem", directory.string());
  }
  return FleetCa(std::move(*key), std::move(*certificate));
}

Result<Identity> Identity::make(PrivateKey key, Certificate certificate, Certificate ca) {
  auto name = certificate.host_name();
  if (!name) return std::unexpected(name.error());
  if (X509_check_private_key(certificate.native(), key.native()) != 1) {
    ERR_clear_error();
    return fail("the certificate of {} does not belong to this host's key", *name);
  }
  if (X509_verify(certificate.native(), X509_get0_pubkey(ca.native())) != 1) {
    ERR_clear_error();
    return fail("the certificate of {} was not signed by the CA of fleet {}", *name,
                ca.common_name());
  }
  return Identity(std::move(key), std::move(certificate), std::move(ca), std::move(*name));
}

Result<Identity> Identity::make(const FleetCa& ca, std::string_view host, Validity validity) {
  PrivateKey key = PrivateKey::make();
  if (!is_valid_name(host)) return fail("'{}' is not a valid host name", host);
  auto certificate = ca.sign(CertificateRequest::make(key, host), host, validity);
  if (!certificate) return std::unexpected(certificate.error());
  return make(std::move(key), std::move(*certificate), ca.certificate());
}

Result<> Identity::save(const std::filesystem::path& directory) const {
  auto wrote = write_file(directory / "host.key", key_.pem(), kSecretMode);
  if (wrote) wrote = write_file(directory / "fleet.pem", ca_.pem(), kPublicMode);
  // Last: a directory with host.pem is complete.
  return wrote ? write_file(directory / "host.pem", certificate_.pem(), kPublicMode) : wrote;
}

Result<Identity> Identity::load(const std::filesystem::path& directory) {
  auto key = load_key(directory / "host.key");
  if (!key) return std::unexpected(key.error());
  auto certificate = load_certificate(directory / "host.pem");
  if (!certificate) return std::unexpected(certificate.error());
  auto ca = load_certificate(directory / "fleet.pem");
  if (!ca) return std::unexpected(ca.error());
  return make(std::move(*key), std::move(*certificate), std::move(*ca));
}

}  // namespace godwit::crypto
