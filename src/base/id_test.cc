#include "base/id.hh"

#include <gtest/gtest.h>

namespace godwit {
namespace {

TEST(Id, TextRoundTrip) {
  const auto id = PortId::parse("000102030405060708090a0b0c0d0e0f");
  ASSERT_TRUE(id);
  EXPECT_EQ(id->text(), "000102030405060708090a0b0c0d0e0f");
  EXPECT_FALSE(PortId::parse("0001"));
}

TEST(Name, FollowsRfc1123) {
  EXPECT_TRUE(is_valid_name("web1"));
  EXPECT_TRUE(is_valid_name("a"));
  EXPECT_FALSE(is_valid_name(""));
  EXPECT_FALSE(is_valid_name("-a"));
  EXPECT_FALSE(is_valid_name("a-"));
  EXPECT_FALSE(is_valid_name("A"));
  EXPECT_FALSE(is_valid_name("a/b"));
  EXPECT_FALSE(is_valid_name(std::string(64, 'a')));
}

}  // namespace
}  // namespace godwit
