#include "agent/volumes.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/test_directory.hh"
#include "os/test_wait.hh"

namespace godwit::agent {
namespace {

using testing::HasSubstr;

VolumeSight sight(std::initializer_list<int> contents) {
  VolumeSight sight{.size = ByteCount{1 << 20}};
  for (const int content : contents) {
    sight.blocks.push_back({.offset = sight.blocks.size() * 4096});
    sight.blocks.back().digest.fill(static_cast<std::byte>(content));
  }
  return sight;
}

TEST(VolumeDifferenceTest, OnlyWhatIsAtRestTells) {
  EXPECT_EQ(difference(sight({1, 2}), sight({1, 2}), sight({1, 2})), "");
  EXPECT_THAT(difference(sight({1, 2}), sight({1, 2}), sight({1, 3})), HasSubstr("byte 4096"));
  // The guest wrote to it: theirs may be what was there between.
  EXPECT_EQ(difference(sight({1, 2}), sight({1, 4}), sight({1, 3})), "");
  EXPECT_NE(difference(sight({1, 2}), sight({1, 4}), sight({0, 3})), "");
  EXPECT_THAT(difference(sight({1, 2}), sight({3, 4}), sight({3, 4})), HasSubstr("try again"));
  EXPECT_NE(difference(sight({}), sight({}), sight({})), "");
}

TEST(VolumeDifferenceTest, SizesAndHowMuchWasRead) {
  VolumeSight larger = sight({1});
  larger.size.bytes *= 2;
  EXPECT_THAT(difference(sight({1}), sight({1}), larger), HasSubstr("2097152 bytes there"));
  EXPECT_NE(difference(sight({1, 2}), sight({1, 2}), sight({1})), "");
  EXPECT_NE(difference(sight({1}), sight({1, 2}), sight({1, 2})), "");
}

TEST(VolumeSightsTest, JsonThereAndBack) {
  const VolumeSights sights{sight({1, 2}), sight({})};
  EXPECT_EQ(volume_sights(to_json(sights)), sights);
  EXPECT_FALSE(volume_sights("text"));
  EXPECT_FALSE(volume_sights({{{"blocks", {{{"offset", 0}, {"digest", "12"}}}}}}));
  VolumeSight large;
  large.blocks.resize(257);
  EXPECT_FALSE(volume_sights(to_json({large})));
}

class VolumesTest : public testing::Test {
 protected:
  VolumesTest() {
    config_.run_dir = directory_.path();
    std::filesystem::create_directory(config_.run_dir / "volumes");
  }

  Result<VolumeSights> look(const std::string& uri) {
    std::optional<Result<VolumeSights>> outcome;
    volumes_.look({{.name = "data", .uri = uri}}, Bytes(crypto::KeyedHash::kKeySize), {},
                  [&](Result<VolumeSights> seen) { outcome = std::move(seen); });
    EXPECT_TRUE(os::run_until(loop_, [&] { return outcome.has_value(); }));
    return outcome.value_or(fail("nothing came"));
  }

  os::Loop loop_;
  TestDirectory directory_;
  Config config_;
  Volumes volumes_{loop_, config_};
};

TEST_F(VolumesTest, SaysWhichCannotBeReached) {
  const auto seen = look("nbd://127.0.0.1:1/x");
  ASSERT_FALSE(seen);
  EXPECT_THAT(seen.error().text, HasSubstr("volume data at nbd://127.0.0.1:1/x"));
  EXPECT_THAT(seen.error().text, HasSubstr("Connection refused"));
}

}  // namespace
}  // namespace godwit::agent
