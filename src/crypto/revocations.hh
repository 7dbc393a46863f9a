#pragma once
// The fleet's list of users' certificates that are no longer good: a CRL (RFC 5280, 5) signed by
// the fleet's CA, which hosts pass on to each other. Whoever passes it on can hold it back, but not
// alter it; a certificate's own end is what bounds that.
#include <cstdint>
#include <set>
#include <string>
#include <string_view>

#include "base/result.hh"
#include "crypto/certificate.hh"

namespace godwit::crypto {

class Revocations final {
 public:
  Revocations() = default;  // none
  // Refused unless `ca` signed it.
  static Result<Revocations> from_pem(std::string_view pem, const Certificate& ca);

  std::uint64_t number() const { return number_; }  // the higher one replaces the lower
  bool has(const std::string& serial) const { return serials_.contains(serial); }
  const std::set<std::string>& serials() const { return serials_; }

 private:
  std::uint64_t number_ = 0;
  std::set<std::string> serials_;
};

}  // namespace godwit::crypto
