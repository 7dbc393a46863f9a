#pragma once
// The two implementations behind aead.hh; only aead.cc includes this.
#include <memory>

#include "crypto/aead.hh"

namespace godwit::crypto {

std::unique_ptr<Aead> make_openssl_aead(AeadAlgorithm algorithm, const AeadKey& key);

bool ipsec_mb_is_fast_here();  // built in, and the CPU has VAES and VPCLMULQDQ
std::unique_ptr<Aead> make_ipsec_mb_aead(const AeadKey& key);

}  // namespace godwit::crypto
