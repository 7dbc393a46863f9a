#include "crypto/keyed_hash.hh"

#include <gtest/gtest.h>

namespace godwit::crypto {
namespace {

// By Python's hashlib: blake2b(data, digest_size=16, key=bytes(range(32))).
TEST(KeyedHash, KnownAnswers) {
  Bytes key(KeyedHash::kKeySize);
  for (std::size_t i = 0; i < key.size(); ++i) key[i] = static_cast<std::byte>(i);
  KeyedHash hash(key);
  EXPECT_EQ(to_hex(hash(as_bytes("hello"))), "b6cd31b2100d036e7bfa834e88e5b054");
  EXPECT_EQ(to_hex(hash({})), "3daf97bce7888fd59773c66bf647459c");
  EXPECT_EQ(to_hex(hash(as_bytes("hello"))), "b6cd31b2100d036e7bfa834e88e5b054");
}

TEST(KeyedHash, AnotherKeyGivesAnotherName) {
  Bytes key(KeyedHash::kKeySize);
  KeyedHash one(key);
  key.back() = std::byte{1};
  KeyedHash other(key);
  EXPECT_NE(one(as_bytes("hello")), other(as_bytes("hello")));
}

}  // namespace
}  // namespace godwit::crypto
