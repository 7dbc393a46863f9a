#include "base/units.hh"

#include <gtest/gtest.h>

namespace godwit {
namespace {

TEST(Units, ParseWhatDesignShows) {
  EXPECT_EQ(parse_bit_rate("400mbit")->bits_per_second, 400'000'000u);
  EXPECT_EQ(parse_byte_count("512MiB")->bytes, 512u << 20);
  EXPECT_EQ(*parse_duration("300ms"), std::chrono::milliseconds(300));
  EXPECT_EQ(*parse_duration("1.5s"), std::chrono::milliseconds(1500));
  EXPECT_DOUBLE_EQ(*parse_percentage("0.1%"), 0.001);
}

TEST(Units, BareAndBadAreRefusedWithARemedy) {
  EXPECT_EQ(parse_duration("300").error().text, "'300' has no unit: write the duration like 300ms");
  EXPECT_FALSE(parse_byte_count("512 MiB"));
  EXPECT_FALSE(parse_byte_count("-1MiB"));
  EXPECT_FALSE(parse_bit_rate("fast"));
  EXPECT_FALSE(parse_bit_rate("1e30gbit"));
  EXPECT_FALSE(parse_byte_count("99999999999TiB"));
  EXPECT_FALSE(parse_percentage("101%"));
}

TEST(Units, PrintForPeople) {
  EXPECT_EQ(to_text(ByteCount{512u << 20}), "512 MiB");
  EXPECT_EQ(to_text(ByteCount{0}), "0 B");
  EXPECT_EQ(to_text(ByteCount{1400000}), "1.34 MiB");
  EXPECT_EQ(to_text(BitRate{400'000'000}), "400 Mbit/s");
  EXPECT_EQ(to_text(Nanoseconds(45'600'000)), "45.6 ms");
  EXPECT_EQ(to_text(Nanoseconds(1'230'000'000)), "1.23 s");
}

}  // namespace
}  // namespace godwit
