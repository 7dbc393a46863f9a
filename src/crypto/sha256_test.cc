#include "crypto/sha256.hh"

#include <gtest/gtest.h>

namespace godwit::crypto {
namespace {

// FIPS 180-4's example, and the digest of nothing.
constexpr const char* kOfAbc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
constexpr const char* kOfNothing =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

TEST(Sha256, KnownAnswers) {
  EXPECT_EQ(to_hex(sha256(as_bytes("abc"))), kOfAbc);
  EXPECT_EQ(to_hex(sha256({})), kOfNothing);
}

TEST(Sha256, PiecesGiveTheDigestOfTheWhole) {
  Sha256Stream none, pieces;
  EXPECT_EQ(to_hex(none.finish()), kOfNothing);
  for (const char* piece : {"a", "", "bc"}) pieces.add(as_bytes(piece));
  EXPECT_EQ(to_hex(pieces.finish()), kOfAbc);
}

}  // namespace
}  // namespace godwit::crypto
