#include "crypto/sha256.hh"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "base/check.hh"

namespace godwit::crypto {

Sha256 sha256(BytesView bytes) {
  Sha256 digest;
  unsigned int size = 0;
  auto* out = reinterpret_cast<unsigned char*>(digest.data());
  const int ok = EVP_Digest(bytes.data(), bytes.size(), out, &size, EVP_sha256(), nullptr);
  CHECK(ok == 1 && size == digest.size());
  return digest;
}

bool equal_in_constant_time(BytesView a, BytesView b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace godwit::crypto
