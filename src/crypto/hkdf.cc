#include "crypto/hkdf.hh"

#include <openssl/core_names.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include <array>
#include <memory>

#include "base/check.hh"

namespace godwit::crypto {
namespace {

struct FreeKdf {
  void operator()(EVP_KDF* kdf) const { EVP_KDF_free(kdf); }
  void operator()(EVP_KDF_CTX* context) const { EVP_KDF_CTX_free(context); }
};

// The parameter type has no const, although OpenSSL only reads what it is given here.
OSSL_PARAM octets(const char* name, BytesView bytes) {
  return OSSL_PARAM_construct_octet_string(name, const_cast<std::byte*>(bytes.data()),
                                           bytes.size());
}

}  // namespace

void hkdf_expand(BytesView secret, BytesView info, MutableBytes out) {
  static const std::unique_ptr<EVP_KDF, FreeKdf> hkdf(EVP_KDF_fetch(nullptr, "HKDF", nullptr));
  const std::unique_ptr<EVP_KDF_CTX, FreeKdf> context(EVP_KDF_CTX_new(hkdf.get()));
  CHECK(context != nullptr);
  int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
  char digest[] = "SHA256";
  const std::array<OSSL_PARAM, 5> parameters = {
      OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
      OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
      octets(OSSL_KDF_PARAM_KEY, secret), octets(OSSL_KDF_PARAM_INFO, info),
      OSSL_PARAM_construct_end()};
  const int done = EVP_KDF_derive(context.get(), reinterpret_cast<unsigned char*>(out.data()),
                                  out.size(), parameters.data());
  CHECK(done == 1, "HKDF-Expand of {} bytes from a secret of {}", out.size(), secret.size());
}

}  // namespace godwit::crypto
