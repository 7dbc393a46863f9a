// AES-256-GCM by libipsec-mb's single-buffer functions, used where they run on 256/512-bit vectors.
#include "crypto/aead_backends.hh"

#include "base/check.hh"

#ifdef GODWIT_HAVE_IPSEC_MB
#include <intel-ipsec-mb.h>
#include <openssl/crypto.h>
#endif

namespace godwit::crypto {

#ifdef GODWIT_HAVE_IPSEC_MB
namespace {

struct FreeImb {
  void operator()(IMB_MGR* functions) const { free_mb_mgr(functions); }
};

// Made once per process; only its table of function pointers is used, so threads may share it.
const IMB_MGR* functions() {
  static const std::unique_ptr<IMB_MGR, FreeImb> table = [] {
    std::unique_ptr<IMB_MGR, FreeImb> made(alloc_mb_mgr(0));
    IMB_ARCH chosen = IMB_ARCH_NONE;
    if (made) init_mb_mgr_auto(made.get(), &chosen);
    return chosen == IMB_ARCH_NONE ? nullptr : std::move(made);
  }();
  return table.get();
}

class IpsecMbAead final : public Aead {
 public:
  explicit IpsecMbAead(const AeadKey& key) { functions()->gcm256_pre(key.bytes.data(), &key_); }
  ~IpsecMbAead() override {
    OPENSSL_cleanse(&key_, sizeof key_);
    OPENSSL_cleanse(&context_, sizeof context_);
  }

  void seal(AeadNonce nonce, BytesView aad, BytesView plain, MutableBytes out) override {
    CHECK(out.size() == plain.size() + kAeadTagBytes);
    functions()->gcm256_enc(&key_, &context_, raw(out.data()), raw(plain.data()), plain.size(),
                            raw(nonce.data()), raw(aad.data()), aad.size(),
                            raw(out.data() + plain.size()), kAeadTagBytes);
  }

  bool open(AeadNonce nonce, BytesView aad, BytesView sealed, MutableBytes out) override {
    CHECK(sealed.size() == out.size() + kAeadTagBytes);
    std::array<std::byte, kAeadTagBytes> expected;
    functions()->gcm256_dec(&key_, &context_, raw(out.data()), raw(sealed.data()), out.size(),
                            raw(nonce.data()), raw(aad.data()), aad.size(), raw(expected.data()),
                            kAeadTagBytes);
    return CRYPTO_memcmp(expected.data(), sealed.data() + out.size(), kAeadTagBytes) == 0;
  }

 private:
  static std::uint8_t* raw(std::byte* at) { return reinterpret_cast<std::uint8_t*>(at); }
  static const std::uint8_t* raw(const std::byte* at) {
    return reinterpret_cast<const std::uint8_t*>(at);
  }

  // The library uses aligned vector stores on both, but its header aligns them only under a macro.
  alignas(64) gcm_key_data key_;
  alignas(64) gcm_context_data context_;
};

}  // namespace

bool ipsec_mb_is_fast_here() {
  constexpr std::uint64_t kNeeded = IMB_FEATURE_VAES | IMB_FEATURE_VPCLMULQDQ;
  return functions() != nullptr && (functions()->features & kNeeded) == kNeeded;
}

std::unique_ptr<Aead> make_ipsec_mb_aead(const AeadKey& key) {
  return std::make_unique<IpsecMbAead>(key);
}

#else

bool ipsec_mb_is_fast_here() { return false; }
std::unique_ptr<Aead> make_ipsec_mb_aead(const AeadKey&) {
  CHECK(false, "built without libipsec-mb");
}

#endif

}  // namespace godwit::crypto
