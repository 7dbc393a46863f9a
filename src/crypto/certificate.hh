#pragma once
// X.509 certificates and keys as Godwit uses them: Ed25519 (RFC 8410), one level below the fleet's
// CA. A host's certificate names the host as CN, as SAN URI "godwit:host/NAME" and as DNS name (for
// other people's HTTPS clients); only the URI makes it a host's, so no other certificate of the
// same CA can pass for one. Users' certificates: crypto/user.hh.
#include <openssl/types.h>

#include <chrono>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.hh"
#include "crypto/sha256.hh"

typedef struct X509_req_st X509_REQ;  // as in <openssl/x509.h>; types.h leaves it out

namespace godwit::crypto {

using WallTime = std::chrono::sys_seconds;  // UTC; certificates know no other clock
WallTime wall_now();
std::string to_text(WallTime time);  // "2026-11-21 07:52 UTC"

struct Validity {
  WallTime from;
  WallTime until;
};

struct User;

class PrivateKey final {
 public:
  static PrivateKey make();
  static Result<PrivateKey> from_pem(std::string_view pem);
  std::string pem() const;
  EVP_PKEY* native() const { return key_.get(); }

 private:
  explicit PrivateKey(std::shared_ptr<EVP_PKEY> key) : key_(std::move(key)) {}
  std::shared_ptr<EVP_PKEY> key_;
};

class Certificate final {
 public:
  static Result<Certificate> from_pem(std::string_view pem);
  // Takes a reference of its own.
  static Certificate from_native(X509* certificate);

  std::string pem() const;
  Sha256 fingerprint() const;  // SHA-256 of the DER form
  // What the subject calls itself, at most 64 printable characters: for messages only.
  std::string common_name() const;
  // The host that this certificate certifies, when it is a host's certificate.
  Result<std::string> host_name() const;
  // The user that it certifies, when it is a user's.
  Result<User> user() const;
  // Whether it is a fleet's CA, good at this moment; the error says what it is not.
  Result<> is_fleet_ca() const;
  std::string serial() const;  // hex digits
  WallTime not_before() const;
  WallTime not_after() const;
  X509* native() const { return certificate_.get(); }

 private:
  explicit Certificate(std::shared_ptr<X509> certificate) : certificate_(std::move(certificate)) {}
  std::shared_ptr<X509> certificate_;
};

// PKCS #10 (RFC 2986): a key asking to be certified. Its subject is a wish, not a claim: the
// signer names the host itself.
class CertificateRequest final {
 public:
  static CertificateRequest make(const PrivateKey& key, std::string_view name);
  // Refused unless signed by the key that it carries.
  static Result<CertificateRequest> from_pem(std::string_view pem);
  std::string pem() const;
  X509_REQ* native() const { return request_.get(); }

 private:
  explicit CertificateRequest(std::shared_ptr<X509_REQ> request) : request_(std::move(request)) {}
  std::shared_ptr<X509_REQ> request_;
};

// "godwit:host/NAME"
std::string host_uri(std::string_view host);

}  // namespace godwit::crypto
