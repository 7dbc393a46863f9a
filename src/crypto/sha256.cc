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

void Sha256Stream::Free::operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }

Sha256Stream::Sha256Stream() : context_(EVP_MD_CTX_new()) {
  CHECK(context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
}

void Sha256Stream::add(BytesView bytes) {
  CHECK(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1);
}

Sha256 Sha256Stream::finish() {
  Sha256 digest;
  unsigned int size = 0;
  auto* out = reinterpret_cast<unsigned char*>(digest.data());
  CHECK(EVP_DigestFinal_ex(context_.get(), out, &size) == 1 && size == digest.size());
  return digest;
}

bool equal_in_constant_time(BytesView a, BytesView b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace godwit::crypto
