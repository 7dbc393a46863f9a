#include "crypto/certificate.hh"

#include <openssl/pem.h>

#include <ctime>

#include "base/bytes.hh"
#include "base/check.hh"
#include "base/id.hh"
#include "crypto/openssl.hh"
#include "crypto/user.hh"

namespace godwit::crypto {
namespace {

constexpr std::size_t kMaxShownName = 64;  // X.520 ub-common-name

WallTime from_asn1(const ASN1_TIME* time) {
  std::tm parts{};
  if (ASN1_TIME_to_tm(time, &parts) != 1) return WallTime{};
  return WallTime{std::chrono::seconds(::timegm(&parts))};
}

std::string text_of(const ASN1_STRING* string) {
  const auto* data = reinterpret_cast<const char*>(ASN1_STRING_get0_data(string));
  return {data, static_cast<std::size_t>(ASN1_STRING_length(string))};
}

std::string first_uri(X509* certificate) {
  struct NamesDeleter {
    void operator()(GENERAL_NAMES* names) const { GENERAL_NAMES_free(names); }
  };
  const std::unique_ptr<GENERAL_NAMES, NamesDeleter> names(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
  for (int i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type == GEN_URI) return text_of(name->d.uniformResourceIdentifier);
  }
  return {};
}

std::string raw_common_name(X509* certificate) {
  X509_NAME* subject = X509_get_subject_name(certificate);
  const int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  if (at < 0) return {};
  return text_of(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
}

// Refuses to ask a person for a password when the file is encrypted.
int no_password(char*, int, int, void*) { return 0; }

}  // namespace

WallTime wall_now() {
  return std::chrono::time_point_cast<std::chrono::seconds>(std::chrono::system_clock::now());
}

std::string to_text(WallTime time) {
  const std::time_t raw = time.time_since_epoch().count();
  std::tm parts{};
  ::gmtime_r(&raw, &parts);
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02} UTC", parts.tm_year + 1900, parts.tm_mon + 1,
                     parts.tm_mday, parts.tm_hour, parts.tm_min);
}

std::string host_uri(std::string_view host) { return fmt::format("godwit:host/{}", host); }

PrivateKey PrivateKey::make() {
  PkeyPtr key(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
  CHECK(key != nullptr, "{}", openssl_reason());
  return PrivateKey(std::shared_ptr<EVP_PKEY>(std::move(key)));
}

Result<PrivateKey> PrivateKey::from_pem(std::string_view pem) {
  const BioPtr bio = text_bio(pem);
  PkeyPtr key(PEM_read_bio_PrivateKey(bio.get(), nullptr, no_password, nullptr));
  if (key == nullptr) return fail("not a private key in PEM form: {}", openssl_reason());
  return PrivateKey(std::shared_ptr<EVP_PKEY>(std::move(key)));
}

std::string PrivateKey::pem() const {
  const BioPtr bio(BIO_new(BIO_s_mem()));
  const int ok =
      PEM_write_bio_PrivateKey(bio.get(), key_.get(), nullptr, nullptr, 0, nullptr, nullptr);
  CHECK(ok == 1, "{}", openssl_reason());
  return bio_text(bio.get());
}

Result<Certificate> Certificate::from_pem(std::string_view pem) {
  const BioPtr bio = text_bio(pem);
  X509Ptr certificate(PEM_read_bio_X509(bio.get(), nullptr, no_password, nullptr));
  if (certificate == nullptr) return fail("not a certificate in PEM form: {}", openssl_reason());
  return Certificate(std::shared_ptr<X509>(std::move(certificate)));
}

Certificate Certificate::from_native(X509* certificate) {
  CHECK(certificate != nullptr && X509_up_ref(certificate) == 1);
  return Certificate(std::shared_ptr<X509>(X509Ptr(certificate)));
}

std::string Certificate::pem() const {
  const BioPtr bio(BIO_new(BIO_s_mem()));
  CHECK(PEM_write_bio_X509(bio.get(), certificate_.get()) == 1);
  return bio_text(bio.get());
}

Sha256 Certificate::fingerprint() const {
  unsigned char* der = nullptr;
  const int size = i2d_X509(certificate_.get(), &der);
  CHECK(size > 0);
  const Sha256 digest = sha256(std::as_bytes(std::span(der, static_cast<std::size_t>(size))));
  OPENSSL_free(der);
  return digest;
}

std::string Certificate::common_name() const {
  std::string shown;
  for (const char c : raw_common_name(certificate_.get())) {
    if (shown.size() == kMaxShownName) break;
    shown += c > ' ' && c < 0x7f ? c : '?';
  }
  return shown.empty() ? "(no name)" : shown;
}

Result<std::string> Certificate::host_name() const {
  std::string name = raw_common_name(certificate_.get());
  if (!is_valid_name(name) || first_uri(certificate_.get()) != host_uri(name)) {
    return fail("certificate of '{}' is not a host's (no matching SAN URI godwit:host/NAME)",
                common_name());
  }
  return name;
}

Result<User> Certificate::user() const {
  auto user = parse_user_uri(first_uri(certificate_.get()));
  if (!user || user->name != raw_common_name(certificate_.get())) {
    return fail("certificate of '{}' is not a user's (no matching SAN URI godwit:ROLE/TENANT/NAME)",
                common_name());
  }
  return *std::move(user);
}

Result<> Certificate::is_fleet_ca() const {
  EVP_PKEY* key = X509_get0_pubkey(certificate_.get());
  const bool signs_hosts = key != nullptr && EVP_PKEY_get_base_id(key) == EVP_PKEY_ED25519 &&
                           X509_check_ca(certificate_.get()) == 1 &&
                           X509_verify(certificate_.get(), key) == 1;
  ERR_clear_error();
  const std::string name = raw_common_name(certificate_.get());
  if (!signs_hosts || !is_valid_name(name)) {
    return fail("certificate of '{}' is not a fleet's CA", common_name());
  }
  if (wall_now() > not_after())
    return fail("the CA of fleet {} expired on {}", name, to_text(not_after()));
  return {};
}

std::string Certificate::serial() const {
  const ASN1_INTEGER* serial = X509_get0_serialNumber(certificate_.get());
  return to_hex(std::as_bytes(std::span(ASN1_STRING_get0_data(serial),
                                        static_cast<std::size_t>(ASN1_STRING_length(serial)))));
}

WallTime Certificate::not_before() const { return from_asn1(X509_get0_notBefore(native())); }
WallTime Certificate::not_after() const { return from_asn1(X509_get0_notAfter(native())); }

CertificateRequest CertificateRequest::make(const PrivateKey& key, std::string_view name) {
  X509RequestPtr request(X509_REQ_new());
  CHECK(request != nullptr);
  X509_NAME* subject = X509_REQ_get_subject_name(request.get());
  const auto* text = reinterpret_cast<const unsigned char*>(name.data());
  CHECK(X509_NAME_add_entry_by_NID(subject, NID_commonName, MBSTRING_ASC, text,
                                   static_cast<int>(name.size()), -1, 0) == 1);
  CHECK(X509_REQ_set_pubkey(request.get(), key.native()) == 1);
  CHECK(X509_REQ_sign(request.get(), key.native(), nullptr) > 0, "{}", openssl_reason());
  return CertificateRequest(std::shared_ptr<X509_REQ>(std::move(request)));
}

Result<CertificateRequest> CertificateRequest::from_pem(std::string_view pem) {
  const BioPtr bio = text_bio(pem);
  X509RequestPtr request(PEM_read_bio_X509_REQ(bio.get(), nullptr, no_password, nullptr));
  if (request == nullptr) return fail("not a certificate request: {}", openssl_reason());
  EVP_PKEY* key = X509_REQ_get0_pubkey(request.get());
  if (key == nullptr || EVP_PKEY_get_base_id(key) != EVP_PKEY_ED25519) {
    return fail("certificate request refused: its key is not Ed25519");
  }
  if (X509_REQ_verify(request.get(), key) != 1) {
    ERR_clear_error();
    return fail("certificate request refused: its signature is wrong");
  }
  return CertificateRequest(std::shared_ptr<X509_REQ>(std::move(request)));
}

std::string CertificateRequest::pem() const {
  const BioPtr bio(BIO_new(BIO_s_mem()));
  CHECK(PEM_write_bio_X509_REQ(bio.get(), request_.get()) == 1);
  return bio_text(bio.get());
}

}  // namespace godwit::crypto
