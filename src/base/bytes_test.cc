#include "base/bytes.hh"

#include <gtest/gtest.h>

namespace godwit {
namespace {

TEST(Reader, ReadsWhatWriterWrote) {
  Bytes out;
  Writer(out).u8(1).u16(0x0203).u32(0x04050607).u64(0x08090a0b0c0d0e0f).text8("hi").text16("ho");
  EXPECT_EQ(to_hex(out), "0102030405060708090a0b0c0d0e0f0268690002686f");
  Reader in(out);
  EXPECT_EQ(in.u8(), 1);
  EXPECT_EQ(in.u16(), 0x0203);
  EXPECT_EQ(in.u32(), 0x04050607u);
  EXPECT_EQ(in.u64(), 0x08090a0b0c0d0e0fu);
  EXPECT_EQ(in.text8(), "hi");
  EXPECT_EQ(in.text16(), "ho");
  EXPECT_TRUE(in.finished());
}

TEST(Reader, ErrorSticks) {
  const Bytes three(3);
  Reader in(three);
  EXPECT_EQ(in.u32(), 0u);
  EXPECT_FALSE(in.ok());
  EXPECT_EQ(in.u8(), 0);
  EXPECT_FALSE(in.finished());
}

TEST(Zeros, OneOtherByteAnywhereIsFound) {
  Bytes bytes(100);
  EXPECT_TRUE(is_all_zeros(bytes));
  EXPECT_TRUE(is_all_zeros({}));
  for (auto& each : bytes) {
    each = std::byte{1};
    EXPECT_FALSE(is_all_zeros(bytes));
    each = std::byte{0};
  }
}

TEST(Hex, RefusesOddAndForeignDigits) {
  EXPECT_TRUE(from_hex("abc").empty());
  EXPECT_TRUE(from_hex("zz").empty());
  EXPECT_EQ(to_hex(from_hex("00fFa5")), "00ffa5");
}

}  // namespace
}  // namespace godwit
