#include "base/base64.hh"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace godwit {
namespace {

TEST(Base64, IsAsRfc4648Has) {
  const std::vector<std::pair<std::string, std::string>> pairs = {
      {"", ""},
      {"f", "Zg=="},
      {"fo", "Zm8="},
      {"foo", "Zm9v"},
      {"foob", "Zm9vYg=="},
      {"fooba", "Zm9vYmE="},
      {"foobar", "Zm9vYmFy"},
      {std::string("\xff\x00\xfe", 3), "/wD+"}};
  for (const auto& [plain, coded] : pairs) {
    EXPECT_EQ(to_base64(plain), coded);
    EXPECT_EQ(from_base64(coded).value(), plain);
  }
  for (const char* wrong : {"Z", "Zg=", "Zg==Zg==", "Zm9v\n===", "====", "Z?=="}) {
    EXPECT_FALSE(from_base64(wrong)) << wrong;
  }
}

}  // namespace
}  // namespace godwit
