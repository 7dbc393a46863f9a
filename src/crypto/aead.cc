#include "crypto/aead.hh"

#include <openssl/crypto.h>

#include "base/check.hh"
#include "crypto/aead_backends.hh"

namespace godwit::crypto {

AeadKey::~AeadKey() { OPENSSL_cleanse(bytes.data(), bytes.size()); }

bool has_backend(AeadBackend backend) {
  return backend != AeadBackend::ipsec_mb || ipsec_mb_is_fast_here();
}

std::unique_ptr<Aead> make_aead(AeadAlgorithm algorithm, const AeadKey& key, AeadBackend backend) {
  CHECK(has_backend(backend));
  const bool use_ipsec_mb = algorithm == AeadAlgorithm::aes_256_gcm &&
                            backend != AeadBackend::openssl && ipsec_mb_is_fast_here();
  CHECK(use_ipsec_mb || backend != AeadBackend::ipsec_mb, "ipsec_mb computes AES-256-GCM only");
  return use_ipsec_mb ? make_ipsec_mb_aead(key) : make_openssl_aead(algorithm, key);
}

bool has_aes_hardware() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("aes") != 0 && __builtin_cpu_supports("pclmul") != 0;
#elif defined(__ARM_FEATURE_AES)
  return true;
#else
  return false;
#endif
}

}  // namespace godwit::crypto
