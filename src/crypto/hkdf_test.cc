#include "crypto/hkdf.hh"

#include <gtest/gtest.h>

namespace godwit::crypto {
namespace {

// RFC 5869, A.1, the expand step.
TEST(Hkdf, ExpandsTheFirstRfcExample) {
  const Bytes secret = from_hex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5");
  const Bytes info = from_hex("f0f1f2f3f4f5f6f7f8f9");
  Bytes out(42);
  hkdf_expand(secret, info, out);
  EXPECT_EQ(to_hex(out),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");
}

TEST(Hkdf, AnotherInfoGivesAnotherKey) {
  const Bytes secret(32, std::byte{7});
  Bytes one(32);
  Bytes two(32);
  hkdf_expand(secret, as_bytes("one"), one);
  hkdf_expand(secret, as_bytes("two"), two);
  EXPECT_NE(one, two);
}

}  // namespace
}  // namespace godwit::crypto
