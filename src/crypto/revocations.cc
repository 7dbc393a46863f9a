#include "crypto/revocations.hh"

#include <openssl/pem.h>

#include "base/bytes.hh"
#include "base/check.hh"
#include "crypto/identity.hh"
#include "crypto/openssl.hh"

namespace godwit::crypto {
namespace {

using CrlPtr = std::unique_ptr<X509_CRL, Deleter<X509_CRL_free>>;
using IntegerPtr = std::unique_ptr<ASN1_INTEGER, Deleter<ASN1_INTEGER_free>>;
using TimePtr = std::unique_ptr<ASN1_TIME, Deleter<ASN1_TIME_free>>;

IntegerPtr integer_of(BytesView big_endian) {
  BIGNUM* number = BN_bin2bn(reinterpret_cast<const unsigned char*>(big_endian.data()),
                             static_cast<int>(big_endian.size()), nullptr);
  IntegerPtr integer(BN_to_ASN1_INTEGER(number, nullptr));
  BN_free(number);
  CHECK(integer != nullptr);
  return integer;
}

void add_revoked(X509_CRL* list, const std::string& serial, const ASN1_TIME* now) {
  X509_REVOKED* entry = X509_REVOKED_new();
  CHECK(entry != nullptr);
  CHECK(X509_REVOKED_set_serialNumber(entry, integer_of(from_hex(serial)).get()) == 1);
  CHECK(X509_REVOKED_set_revocationDate(entry, const_cast<ASN1_TIME*>(now)) == 1);
  CHECK(X509_CRL_add0_revoked(list, entry) == 1);
}

}  // namespace

std::string FleetCa::revoke(const std::vector<std::string>& serials, std::uint64_t number) const {
  const CrlPtr list(X509_CRL_new());
  const TimePtr now(ASN1_TIME_set(nullptr, wall_now().time_since_epoch().count()));
  CHECK(list != nullptr && now != nullptr && X509_CRL_set_version(list.get(), 1) == 1);
  CHECK(X509_CRL_set_issuer_name(list.get(), X509_get_subject_name(certificate_.native())) == 1);
  CHECK(X509_CRL_set1_lastUpdate(list.get(), now.get()) == 1);
  for (const auto& serial : serials) add_revoked(list.get(), serial, now.get());
  const IntegerPtr count(ASN1_INTEGER_new());
  CHECK(count != nullptr && ASN1_INTEGER_set_uint64(count.get(), number) == 1);
  CHECK(X509_CRL_add1_ext_i2d(list.get(), NID_crl_number, count.get(), 0, 0) == 1);
  X509_CRL_sort(list.get());
  CHECK(X509_CRL_sign(list.get(), key_.native(), nullptr) > 0, "{}", openssl_reason());
  const BioPtr bio(BIO_new(BIO_s_mem()));
  CHECK(PEM_write_bio_X509_CRL(bio.get(), list.get()) == 1);
  return bio_text(bio.get());
}

Result<Revocations> Revocations::from_pem(std::string_view pem, const Certificate& ca) {
  const BioPtr bio = text_bio(pem);
  const CrlPtr list(PEM_read_bio_X509_CRL(bio.get(), nullptr, nullptr, nullptr));
  if (list == nullptr) return fail("not a list of revoked certificates: {}", openssl_reason());
  if (X509_CRL_verify(list.get(), X509_get0_pubkey(ca.native())) != 1) {
    ERR_clear_error();
    return fail("the list of revoked certificates is not signed by fleet {}", ca.common_name());
  }
  Revocations revocations;
  const IntegerPtr number(static_cast<ASN1_INTEGER*>(
      X509_CRL_get_ext_d2i(list.get(), NID_crl_number, nullptr, nullptr)));
  if (number == nullptr || ASN1_INTEGER_get_uint64(&revocations.number_, number.get()) != 1) {
    return fail("the list of revoked certificates has no number");
  }
  STACK_OF(X509_REVOKED)* entries = X509_CRL_get_REVOKED(list.get());
  for (int i = 0; i < sk_X509_REVOKED_num(entries); ++i) {
    const ASN1_INTEGER* serial = X509_REVOKED_get0_serialNumber(sk_X509_REVOKED_value(entries, i));
    revocations.serials_.insert(to_hex(std::as_bytes(std::span(
        ASN1_STRING_get0_data(serial), static_cast<std::size_t>(ASN1_STRING_length(serial))))));
  }
  return revocations;
}

}  // namespace godwit::crypto
