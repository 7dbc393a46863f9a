#include "session/version.hh"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "session/test_host.hh"

namespace godwit::session {
namespace {

using testing::HasSubstr;

Versions speaks(unsigned oldest, unsigned newest) {
  return {.protocol = newest, .oldest = oldest, .software = "x"};
}

TEST(Version, TheNewestThatBothSpeak) {
  EXPECT_EQ(agree(speaks(1, 2), speaks(1, 2), "b").value(), 2U);
  EXPECT_EQ(agree(speaks(1, 2), speaks(1, 1), "b").value(), 1U);
  EXPECT_EQ(agree(speaks(2, 3), speaks(1, 2), "b").value(), 2U);
  EXPECT_THAT(agree(speaks(1, 2), speaks(3, 4), "b").error().text, HasSubstr("upgrade this host"));
  EXPECT_THAT(agree(speaks(3, 4), speaks(1, 2), "b").error().text, HasSubstr("upgrade b"));
}

// The rule that makes an upgrade host by host possible.
TEST(Version, ThisReleaseSpeaksWithTheOneBefore) {
  const Versions before = speaks(1, kProtocol - 1);
  EXPECT_EQ(agree(own_versions(), before, "b").value(), kProtocol - 1);
}

TEST(Version, HelloOfTheFirstProtocolHadNone) {
  const Versions first{.protocol = 1, .oldest = 1, .software = ""};
  EXPECT_EQ(versions_of({{"instance", "a"}, {"replaces", false}}), first);
  for (const char* hostile : {R"({"protocol":-1,"oldest_protocol":0,"version":7})",
                              R"({"protocol":1e9,"oldest_protocol":"2"})",
                              R"({"protocol":18446744073709551615})", R"([1,2])", R"(null)"}) {
    EXPECT_EQ(versions_of(nlohmann::json::parse(hostile)), first) << hostile;
  }
  nlohmann::json hello;
  add_versions(speaks(3, 7), hello);
  EXPECT_EQ(versions_of(hello), speaks(3, 7));
  const auto odd = nlohmann::json::parse(R"({"protocol":2,"oldest_protocol":9})");
  EXPECT_EQ(versions_of(odd).oldest, 2U);
}

class VersionTest : public testing::Test {
 protected:
  static LinkLimits speaking(unsigned oldest, unsigned newest) {
    LinkLimits limits;
    limits.versions = speaks(oldest, newest);
    return limits;
  }
  os::Loop loop_;
  crypto::FleetCa ca_ = crypto::FleetCa::make("test");
};

TEST_F(VersionTest, SessionsOfNeighboursSpeakTheOlderProtocol) {
  TestHost east(loop_, ca_, "east-1", speaking(1, 2)), west(loop_, ca_, "west-1", speaking(2, 3));
  east.sessions.want("west-1", {west.address});
  ASSERT_TRUE(os::run_until(loop_, [&] { return joined(east, west); }));
  EXPECT_EQ(east.sessions.find("west-1")->protocol(), 2U);
  EXPECT_EQ(west.sessions.find("east-1")->protocol(), 2U);
  EXPECT_EQ(east.sessions.find("west-1")->peer_version(), "x");
}

TEST_F(VersionTest, WithoutACommonProtocolThereIsNoSessionAndItSaysWhy) {
  TestHost east(loop_, ca_, "east-1", speaking(1, 2)), west(loop_, ca_, "west-1", speaking(3, 4));
  east.sessions.want("west-1", {west.address});
  ASSERT_TRUE(os::run_until(
      loop_, [&] { return east.error("west-1").find("upgrade this host") != std::string::npos; }));
  EXPECT_FALSE(joined(east, west));
}

}  // namespace
}  // namespace godwit::session
