// AES-256-GCM and ChaCha20-Poly1305 by OpenSSL 3. The cost per packet is kept down as measured in
// 2026: the cipher is fetched once per process, a context keeps its key, and only the nonce is set
// per packet (a fetch per packet alone costs more than sealing 1444 B).
#include <openssl/evp.h>

#include <algorithm>

#include "base/check.hh"
#include "crypto/aead_backends.hh"

namespace godwit::crypto {
namespace {

unsigned char* raw(std::byte* at) { return reinterpret_cast<unsigned char*>(at); }
const unsigned char* raw(const std::byte* at) { return reinterpret_cast<const unsigned char*>(at); }
int length(BytesView bytes) { return static_cast<int>(bytes.size()); }

struct FreeCipher {
  void operator()(EVP_CIPHER* cipher) const { EVP_CIPHER_free(cipher); }
};
struct FreeContext {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};
using Cipher = std::unique_ptr<EVP_CIPHER, FreeCipher>;
using Context = std::unique_ptr<EVP_CIPHER_CTX, FreeContext>;

const EVP_CIPHER* cipher_of(AeadAlgorithm algorithm) {
  static const Cipher aes(EVP_CIPHER_fetch(nullptr, "AES-256-GCM", nullptr));
  static const Cipher chacha(EVP_CIPHER_fetch(nullptr, "ChaCha20-Poly1305", nullptr));
  const EVP_CIPHER* cipher = algorithm == AeadAlgorithm::aes_256_gcm ? aes.get() : chacha.get();
  CHECK(cipher != nullptr, "OpenSSL does not offer AEAD algorithm {}", int(algorithm));
  return cipher;
}

class OpenSslAead final : public Aead {
 public:
  OpenSslAead(AeadAlgorithm algorithm, const AeadKey& key) : context_(EVP_CIPHER_CTX_new()) {
    CHECK(context_ != nullptr);
    const int done = EVP_EncryptInit_ex2(context_.get(), cipher_of(algorithm),
                                         raw(key.bytes.data()), nullptr, nullptr);
    CHECK(done == 1);
  }

  void seal(AeadNonce nonce, BytesView aad, BytesView plain, MutableBytes out) override {
    CHECK(out.size() == plain.size() + kAeadTagBytes);
    EVP_CIPHER_CTX* context = context_.get();
    int written = 0;
    int done = EVP_EncryptInit_ex2(context, nullptr, nullptr, raw(nonce.data()), nullptr);
    done &= EVP_EncryptUpdate(context, nullptr, &written, raw(aad.data()), length(aad));
    done &= EVP_EncryptUpdate(context, raw(out.data()), &written, raw(plain.data()), length(plain));
    done &= EVP_EncryptFinal_ex(context, raw(out.data()) + written, &written);
    done &= EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, int{kAeadTagBytes},
                                out.data() + plain.size());
    CHECK(done == 1);
  }

  bool open(AeadNonce nonce, BytesView aad, BytesView sealed, MutableBytes out) override {
    CHECK(sealed.size() == out.size() + kAeadTagBytes);
    EVP_CIPHER_CTX* context = context_.get();
    std::array<std::byte, kAeadTagBytes> tag;  // copied: OpenSSL's interface takes no const
    std::copy_n(sealed.end() - kAeadTagBytes, kAeadTagBytes, tag.begin());
    int written = 0;
    int done = EVP_DecryptInit_ex2(context, nullptr, nullptr, raw(nonce.data()), nullptr);
    done &= EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, int{kAeadTagBytes}, tag.data());
    done &= EVP_DecryptUpdate(context, nullptr, &written, raw(aad.data()), length(aad));
    CHECK(done == 1);
    return EVP_DecryptUpdate(context, raw(out.data()), &written, raw(sealed.data()), length(out)) ==
               1 &&
           EVP_DecryptFinal_ex(context, raw(out.data()) + written, &written) == 1;
  }

 private:
  Context context_;
};

}  // namespace

std::unique_ptr<Aead> make_openssl_aead(AeadAlgorithm algorithm, const AeadKey& key) {
  return std::make_unique<OpenSslAead>(algorithm, key);
}

}  // namespace godwit::crypto
