#include "base/utc_text.hh"

#include <gtest/gtest.h>

namespace godwit {
namespace {

TEST(UtcText, IsWrittenAndRead) {
  EXPECT_EQ(utc_text(1795298400), "2026-11-21T22:00:00Z");
  EXPECT_EQ(utc_text(0), "1970-01-01T00:00:00Z");
  for (const std::int64_t time : {0L, 951782400L, 1795298401L}) {
    EXPECT_EQ(parse_utc(utc_text(time)), time);
  }
  for (const char* wrong : {"", "2026-11-21", "2026-11-21T22:00:00", "2026-11-21T22:00:00Z ",
                            "2026-13-21T22:00:00Z", "yesterday"}) {
    EXPECT_FALSE(parse_utc(wrong)) << wrong;
  }
}

}  // namespace
}  // namespace godwit
