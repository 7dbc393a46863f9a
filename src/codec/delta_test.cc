#include "codec/delta.hh"

#include <gtest/gtest.h>

#include <random>

namespace godwit::codec {
namespace {

TEST(Delta, MakesTheNewPageFromTheOld) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 500; ++i) {
    Bytes before(4096);
    for (auto& byte : before) byte = static_cast<std::byte>(random());
    Bytes after = before;
    for (std::uint64_t n = random() % 40; n > 0; --n) after[random() % 4096] ^= std::byte{0x40};
    Bytes operations, literals;
    ASSERT_TRUE(append_delta(before, after, 512, operations, literals));
    EXPECT_LE(literals.size(), 40 * kDeltaWord);
    Reader words(operations), bits(literals);
    ASSERT_TRUE(apply_delta(before, words, bits));
    EXPECT_EQ(before, after);
    EXPECT_TRUE(words.finished() && bits.finished());
  }
}

TEST(Delta, TooManyChangesAreNone) {
  const Bytes before(4096, std::byte{1}), after(4096, std::byte{2});
  Bytes operations(3), literals(5);
  EXPECT_FALSE(append_delta(before, after, 511, operations, literals));
  EXPECT_EQ(operations.size(), 3U);
  EXPECT_EQ(literals.size(), 5U);
  EXPECT_TRUE(append_delta(before, after, 512, operations, literals));
}

TEST(Delta, GarbageIsRefused) {
  Bytes page(4096);
  for (const char* hex : {"", "0000", "8104", "00ff7f", "ffffffffffffffffff01ff", "ff04"}) {
    const Bytes operations = from_hex(hex);
    const Bytes literals(64);
    Reader words(operations), bits(literals);
    EXPECT_FALSE(apply_delta(page, words, bits)) << hex;
  }
}

}  // namespace
}  // namespace godwit::codec
