#pragma once
// Who a host is: the fleet's CA, which signs hosts' certificates, and a host's identity (its key,
// its certificate, the CA's certificate). On disk: PEM files, keys readable by their owner only.
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hh"
#include "crypto/certificate.hh"

namespace godwit::crypto {

// A clock that is behind by less than this still accepts a certificate made just now.
constexpr std::chrono::minutes kClockSkew{10};
constexpr std::chrono::days kHostCertificateLife{365};
constexpr std::chrono::days kCaLife{3650};

// [now - kClockSkew, now + life]
Validity valid_from_now(std::chrono::seconds life);

// The authority of one fleet, held by its founder. Directory: ca.key (0600), ca.pem.
class FleetCa final {
 public:
  static FleetCa make(std::string_view fleet, Validity validity = valid_from_now(kCaLife));
  static Result<FleetCa> load(const std::filesystem::path& directory);
  Result<> save(const std::filesystem::path& directory) const;

  // Certifies the request's key as `host`, whatever subject the request asks for.
  Result<Certificate> sign(const CertificateRequest& request, std::string_view host,
                           Validity validity = valid_from_now(kHostCertificateLife)) const;
  // Certifies the request's key as this user's, for use as a client only.
  Result<Certificate> sign_user(const CertificateRequest& request, const User& user,
                                Validity validity) const;
  // The certificates with these serials (hex) are no longer good; `number` grows with each list.
  // PEM (RFC 5280, 5), for every host of the fleet.
  std::string revoke(const std::vector<std::string>& serials, std::uint64_t number) const;
  const Certificate& certificate() const { return certificate_; }
  std::string fleet() const { return certificate_.common_name(); }

 private:
  FleetCa(PrivateKey key, Certificate certificate)
      : key_(std::move(key)), certificate_(std::move(certificate)) {}
  Certificate sign_leaf(const CertificateRequest& request, std::string_view name,
                        const std::string& usage, const std::string& alternative,
                        Validity validity) const;
  PrivateKey key_;
  Certificate certificate_;
};

// One host's. Directory: host.key (0600), host.pem, fleet.pem.
class Identity final {
 public:
  // Refused, with the reason, when the parts do not belong together.
  static Result<Identity> make(PrivateKey key, Certificate certificate, Certificate ca);
  // A key made here and certified at once: for a founder, and for tests.
  static Result<Identity> make(const FleetCa& ca, std::string_view host,
                               Validity validity = valid_from_now(kHostCertificateLife));
  static Result<Identity> load(const std::filesystem::path& directory);
  Result<> save(const std::filesystem::path& directory) const;

  const std::string& host_name() const { return host_name_; }
  std::string fleet() const { return ca_.common_name(); }
  const PrivateKey& key() const { return key_; }
  const Certificate& certificate() const { return certificate_; }
  const Certificate& ca() const { return ca_; }

 private:
  Identity(PrivateKey key, Certificate certificate, Certificate ca, std::string host_name)
      : key_(std::move(key)),
        certificate_(std::move(certificate)),
        ca_(std::move(ca)),
        host_name_(std::move(host_name)) {}
  PrivateKey key_;
  Certificate certificate_;
  Certificate ca_;
  std::string host_name_;
};

}  // namespace godwit::crypto
