#include "crypto/keyed_hash.hh"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include "base/check.hh"

namespace godwit::crypto {

void KeyedHash::Free::operator()(EVP_MAC_CTX* context) const { EVP_MAC_CTX_free(context); }

KeyedHash::KeyedHash(BytesView key) {
  CHECK(key.size() == kKeySize);
  EVP_MAC* mac = EVP_MAC_fetch(nullptr, OSSL_MAC_NAME_BLAKE2BMAC, nullptr);
  CHECK(mac != nullptr, "this OpenSSL has no BLAKE2");
  context_.reset(EVP_MAC_CTX_new(mac));
  EVP_MAC_free(mac);
  std::size_t size = kSize;
  const std::array params{OSSL_PARAM_construct_size_t(OSSL_MAC_PARAM_SIZE, &size),
                          OSSL_PARAM_construct_end()};
  const int ok = EVP_MAC_init(context_.get(), reinterpret_cast<const unsigned char*>(key.data()),
                              key.size(), params.data());
  CHECK(ok == 1);
}

KeyedHash::Digest KeyedHash::operator()(BytesView bytes) {
  Digest digest;
  std::size_t size = 0;
  // No key: the one before, from the start.
  const bool ok =
      EVP_MAC_init(context_.get(), nullptr, 0, nullptr) == 1 &&
      EVP_MAC_update(context_.get(), reinterpret_cast<const unsigned char*>(bytes.data()),
                     bytes.size()) == 1 &&
      EVP_MAC_final(context_.get(), reinterpret_cast<unsigned char*>(digest.data()), &size,
                    digest.size()) == 1;
  CHECK(ok && size == digest.size());
  return digest;
}

}  // namespace godwit::crypto
