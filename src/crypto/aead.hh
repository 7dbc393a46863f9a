#pragma once
// Authenticated encryption of single datagrams: AES-256-GCM (NIST SP 800-38D) or
// ChaCha20-Poly1305 (RFC 8439), both with a 32-byte key, a 12-byte nonce and a 16-byte tag.
//
// Which algorithm a wire uses is agreed by its two hosts (choose_algorithm); which library computes
// it is each host's own affair: libipsec-mb where the CPU has VAES and VPCLMULQDQ (about 4 times
// OpenSSL 3.0 at 1444 B), else OpenSSL. Both give the same bytes.
#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "base/bytes.hh"

namespace godwit::crypto {

inline constexpr std::size_t kAeadKeyBytes = 32;
inline constexpr std::size_t kAeadNonceBytes = 12;
inline constexpr std::size_t kAeadTagBytes = 16;

enum class AeadAlgorithm : std::uint8_t { aes_256_gcm = 1, chacha20_poly1305 = 2 };

// A secret key; wiped when it goes. Copies are allowed because a key is a value, but keep few.
struct AeadKey {
  std::array<std::byte, kAeadKeyBytes> bytes{};

  AeadKey() = default;
  AeadKey(const AeadKey&) = default;
  AeadKey& operator=(const AeadKey&) = default;
  ~AeadKey();
};

using AeadNonce = std::span<const std::byte, kAeadNonceBytes>;

// One key, used by one thread. Neither call allocates. A (key, nonce) pair must never seal twice:
// the caller's counter sees to that.
class Aead {
 public:
  Aead() = default;
  Aead(const Aead&) = delete;
  Aead& operator=(const Aead&) = delete;
  virtual ~Aead() = default;

  // Writes the ciphertext of `plain` and then the tag to `out`, which has plain.size() + 16 bytes
  // and either does not overlap `plain` or begins where it begins.
  virtual void seal(AeadNonce nonce, BytesView aad, BytesView plain, MutableBytes out) = 0;

  // `sealed` is ciphertext and tag, at least 16 bytes; `out` has sealed.size() - 16 bytes and
  // either does not overlap or begins where `sealed` begins. False: not authentic, and what is now
  // in `out` must not be looked at.
  [[nodiscard]] virtual bool open(AeadNonce nonce, BytesView aad, BytesView sealed,
                                  MutableBytes out) = 0;
};

enum class AeadBackend : std::uint8_t { automatic, openssl, ipsec_mb };

// True when this CPU has what `backend` needs and it was built in.
bool has_backend(AeadBackend backend);
// `ipsec_mb` exists for AES-256-GCM only, and only where has_backend() says so (CHECKed).
std::unique_ptr<Aead> make_aead(AeadAlgorithm algorithm, const AeadKey& key,
                                AeadBackend backend = AeadBackend::automatic);

// True when the CPU computes AES and carry-less products in hardware (else ChaCha20 is faster, and
// a table-driven AES would leak through the cache).
bool has_aes_hardware();
// What two hosts use between them: AES only when both have the hardware.
constexpr AeadAlgorithm choose_algorithm(bool ours_has_aes, bool theirs_has_aes) {
  return ours_has_aes && theirs_has_aes ? AeadAlgorithm::aes_256_gcm
                                        : AeadAlgorithm::chacha20_poly1305;
}

}  // namespace godwit::crypto
