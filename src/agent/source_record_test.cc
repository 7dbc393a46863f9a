#include "agent/source_record.hh"

#include <gtest/gtest.h>

#include "os/random.hh"

namespace godwit::agent {
namespace {

TEST(SourceRecord, TheMembersOfAGroupDivideTheMemoryOfOneMove) {
  SourceRecord record;
  const codec::Settings alone = codec_settings(record, kWindowsProtocol);
  EXPECT_EQ(alone.cache, kDefaultCache.bytes);
  for (const std::size_t members : {2UZ, 3UZ, 4UZ, 16UZ}) {
    record.group = {.id = os::random_id<MigrationId>(), .index = 0, .of = members};
    const codec::Settings one = codec_settings(record, kWindowsProtocol);
    EXPECT_LE(members * one.cache, alone.cache);
    EXPECT_LE(members << one.window_bits, 1UZ << alone.window_bits);
    EXPECT_GT((2 * members) << one.window_bits, 1UZ << alone.window_bits);
  }
}

TEST(SourceRecord, WindowsAreForWhoKnowsOfThem) {
  EXPECT_EQ(codec_settings(SourceRecord{}, kWindowsProtocol - 1).windows, 1);
  codec::Settings settings{.windows = codec::kMaxWindows};
  nlohmann::json told = nlohmann::json::parse(to_json(std::optional(settings)).dump());
  EXPECT_EQ(parse_codec(told).value()->windows, codec::kMaxWindows);
  for (const int wrong : {0, codec::kMaxWindows + 1}) {
    told["windows"] = static_cast<unsigned>(wrong);
    EXPECT_FALSE(parse_codec(told)) << wrong;
  }
  told.erase("windows");  // an older agent's
  EXPECT_EQ(parse_codec(told).value()->windows, 1);
}

TEST(SharedPlace, IsToldAndBounded) {
  const SharedPlace place{
      .group = os::random_id<MigrationId>(), .member = 15, .most_pages = kMostShared.bytes / 4096};
  nlohmann::json told = to_json(std::optional(place));
  const auto heard = parse_shared(told);
  ASSERT_TRUE(heard && *heard);
  EXPECT_EQ((*heard)->group, place.group);
  EXPECT_EQ((*heard)->member, place.member);
  EXPECT_EQ((*heard)->most_pages, place.most_pages);
  EXPECT_FALSE(parse_shared(nullptr)->has_value());
  for (const auto& [key, value] :
       {std::pair{"member", 16ULL}, std::pair{"most_pages", 1ULL << 40}}) {
    nlohmann::json hostile = told;
    hostile[key] = value;
    EXPECT_FALSE(parse_shared(hostile)) << hostile;
  }
  told.erase("id");
  EXPECT_FALSE(parse_shared(told));
}

}  // namespace
}  // namespace godwit::agent
