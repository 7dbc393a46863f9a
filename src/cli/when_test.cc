#include "cli/when.hh"

#include <gtest/gtest.h>
#include <stdlib.h>

#include "base/utc_text.hh"

namespace godwit::cli {
namespace {

struct WhenTest : ::testing::Test {
  WhenTest() {
    ::setenv("TZ", "CET-1", 1);  // a rule, as not every system has the zones' files
    ::tzset();
  }
  ~WhenTest() override {
    ::unsetenv("TZ");
    ::tzset();
  }
  // 2026-11-21 14:00 UTC, 15:00 local.
  static constexpr std::time_t kNow = 1795269600;
};

TEST_F(WhenTest, Forms) {
  const auto at = [](std::string_view text) {
    const auto when = parse_when(text, kNow);
    return when ? utc_text(*when) : when.error().text;
  };
  EXPECT_EQ(utc_text(kNow), "2026-11-21T14:00:00Z");
  EXPECT_EQ(at("+10min"), "2026-11-21T14:10:00Z");
  EXPECT_EQ(at("22:30"), "2026-11-21T21:30:00Z");
  EXPECT_EQ(at("14:30"), "2026-11-22T13:30:00Z") << "has passed today";
  EXPECT_EQ(at("2026-12-01T08:00"), "2026-12-01T07:00:00Z");
  EXPECT_EQ(at("2026-12-01T08:00:00Z"), "2026-12-01T08:00:00Z");
  EXPECT_EQ(at("2026-11-01T08:00:00Z"), "'2026-11-01T08:00:00Z' has passed");
  EXPECT_NE(at("+10").find("has no unit"), std::string::npos);
  for (const char* text : {"soon", "25:00", "12:30pm", "2026-13-01T00:00Z", ""}) {
    EXPECT_NE(at(text).find("is not a time"), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace godwit::cli
