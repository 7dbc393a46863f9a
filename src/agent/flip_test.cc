// What a target tells the source of a guest's new way out.
#include "agent/flip.hh"

#include <gmock/gmock.h>

namespace godwit::agent {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;

TEST(FlipReport, ComesToThePeerAsItWas) {
  const FlipReport done = flip_report(to_json({.port = "web-for-f1",
                                               .took = milliseconds(250),
                                               .notes = {"cannot write this", "or that"}}));
  EXPECT_EQ(done.port, "web-for-f1");
  EXPECT_EQ(done.took, milliseconds(250));
  EXPECT_EQ(done.why, "");
  EXPECT_THAT(done.notes, ElementsAre("cannot write this", "or that"));
  EXPECT_EQ(flip_report(to_json({.port = "web-for-f1", .why = "no guest agent"})).why,
            "no guest agent");
}

TEST(FlipReport, OfAPeerIsBounded) {
  const std::string endless(1 << 20, 'x');
  const FlipReport told = flip_report(
      {{"port", endless}, {"done", true}, {"ms", -1e300}, {"notes", json(1000, endless)}});
  EXPECT_EQ(told.port.size(), 1024U);
  EXPECT_EQ(told.took, Nanoseconds(0));
  EXPECT_EQ(told.notes.size(), 64U);
  EXPECT_EQ(told.notes.back().size(), 1024U);
  for (const json& strange : {json(), json("done"), json::array(), json{{"notes", {1, "x"}}}}) {
    EXPECT_EQ(flip_report(strange).why, "not said") << strange;
    EXPECT_TRUE(flip_report(strange).notes.empty()) << strange;
  }
}

}  // namespace
}  // namespace godwit::agent
