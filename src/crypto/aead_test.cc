// Published vectors, agreement of the back-ends, and refusal of every single changed bit.
#include "crypto/aead.hh"

#include <gtest/gtest.h>

#include <random>

namespace godwit::crypto {
namespace {

AeadKey key_from(const Bytes& bytes) {
  AeadKey key;
  std::copy_n(bytes.begin(), kAeadKeyBytes, key.bytes.begin());
  return key;
}
AeadNonce nonce_from(const Bytes& bytes) { return AeadNonce(bytes.data(), kAeadNonceBytes); }

Bytes seal(Aead& aead, const Bytes& nonce, const Bytes& aad, const Bytes& plain) {
  Bytes out(plain.size() + kAeadTagBytes);
  aead.seal(nonce_from(nonce), aad, plain, out);
  return out;
}

struct Case {
  AeadAlgorithm algorithm;
  AeadBackend backend;
};

class AeadTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (!has_backend(GetParam().backend)) GTEST_SKIP() << "this CPU has no VAES";
  }
  std::unique_ptr<Aead> make(const AeadKey& key) {
    return make_aead(GetParam().algorithm, key, GetParam().backend);
  }
};

// GCM specification (McGrew, Viega 2005), test case 16; RFC 8439, 2.8.2.
TEST_P(AeadTest, MatchesThePublishedVector) {
  const bool aes = GetParam().algorithm == AeadAlgorithm::aes_256_gcm;
  const auto aead = make(
      key_from(from_hex(aes ? "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"
                            : "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f")));
  const Bytes nonce = from_hex(aes ? "cafebabefacedbaddecaf888" : "070000004041424344454647");
  const Bytes aad =
      from_hex(aes ? "feedfacedeadbeeffeedfacedeadbeefabaddad2" : "50515253c0c1c2c3c4c5c6c7");
  const Bytes plain =
      aes ? from_hex(
                "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
                "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39")
          : to_bytes(as_bytes("Ladies and Gentlemen of the class of '99: If I could offer you only "
                              "one tip for the future, sunscreen would be it."));
  const Bytes sealed = seal(*aead, nonce, aad, plain);
  EXPECT_EQ(to_hex(BytesView(sealed).last(16)),
            aes ? "76fc6ece0f4e1768cddf8853bb2d551b" : "1ae10b594f09e26a7e902ecbd0600691");
  EXPECT_EQ(to_hex(BytesView(sealed).first(16)),
            aes ? "522dc1f099567d07f47f37a32a84427d" : "d31a8d34648e60db7b86afbc53ef7ec2");
}

TEST_P(AeadTest, OpensWhatItSealedInPlaceAtEverySize) {
  const auto aead = make(key_from(Bytes(32, std::byte{0x42})));
  std::mt19937 random(1);
  const Bytes aad(8, std::byte{9});
  for (std::size_t size = 0; size < 2000; size += 1 + size / 20) {
    Bytes nonce(kAeadNonceBytes);
    for (auto& byte : nonce) byte = std::byte(random());
    Bytes plain(size);
    for (auto& byte : plain) byte = std::byte(random());
    Bytes buffer = plain;
    buffer.resize(size + kAeadTagBytes);
    aead->seal(nonce_from(nonce), aad, MutableBytes(buffer).first(size), buffer);
    EXPECT_EQ(buffer, seal(*aead, nonce, aad, plain));
    ASSERT_TRUE(aead->open(nonce_from(nonce), aad, buffer, MutableBytes(buffer).first(size)));
    buffer.resize(size);
    EXPECT_EQ(buffer, plain);
  }
}

TEST_P(AeadTest, RefusesAnyChangedBit) {
  const auto aead = make(key_from(Bytes(32, std::byte{0x17})));
  Bytes nonce(kAeadNonceBytes, std::byte{1});
  Bytes aad(8, std::byte{2});
  Bytes sealed = seal(*aead, nonce, aad, Bytes(20, std::byte{3}));
  Bytes out(20);
  const auto opens = [&] { return aead->open(nonce_from(nonce), aad, sealed, out); };
  ASSERT_TRUE(opens());
  for (Bytes* part : {&nonce, &aad, &sealed}) {
    for (std::size_t bit = 0; bit < part->size() * 8; ++bit) {
      (*part)[bit / 8] ^= std::byte(1 << (bit % 8));
      EXPECT_FALSE(opens()) << "bit " << bit;
      (*part)[bit / 8] ^= std::byte(1 << (bit % 8));
    }
  }
  EXPECT_TRUE(opens());
}

INSTANTIATE_TEST_SUITE_P(Backends, AeadTest,
                         testing::Values(Case{AeadAlgorithm::aes_256_gcm, AeadBackend::openssl},
                                         Case{AeadAlgorithm::aes_256_gcm, AeadBackend::ipsec_mb},
                                         Case{AeadAlgorithm::chacha20_poly1305,
                                              AeadBackend::openssl}));

TEST(Aead, BackendsGiveTheSameBytes) {
  if (!has_backend(AeadBackend::ipsec_mb)) GTEST_SKIP() << "this CPU has no VAES";
  const AeadKey key = key_from(Bytes(32, std::byte{0x55}));
  const auto one = make_aead(AeadAlgorithm::aes_256_gcm, key, AeadBackend::openssl);
  const auto two = make_aead(AeadAlgorithm::aes_256_gcm, key, AeadBackend::ipsec_mb);
  for (std::size_t size : {0U, 1U, 15U, 16U, 17U, 255U, 1420U, 9000U}) {
    const Bytes nonce(kAeadNonceBytes, std::byte(size));
    const Bytes plain(size, std::byte{0xa5});
    const Bytes aad(8, std::byte{1});
    EXPECT_EQ(seal(*one, nonce, aad, plain), seal(*two, nonce, aad, plain)) << size;
  }
}

TEST(Aead, AesIsChosenOnlyWhenBothHaveIt) {
  EXPECT_EQ(choose_algorithm(true, true), AeadAlgorithm::aes_256_gcm);
  EXPECT_EQ(choose_algorithm(true, false), AeadAlgorithm::chacha20_poly1305);
  EXPECT_EQ(choose_algorithm(false, true), AeadAlgorithm::chacha20_poly1305);
}

}  // namespace
}  // namespace godwit::crypto
