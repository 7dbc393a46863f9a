// What a host is told of a component, and what not.
#include "topology/difference.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace godwit::topology {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::IsEmpty;

TEST(Covers, WhatIsSaidAndNothingElse) {
  const auto is = json::parse(R"({"a": 1, "mac": "52:54:00:aa", "list": [{"x": 1, "y": 2}],
                                  "rules": [{"ports": ["80", "@web"]}]})");
  for (const char* good : {R"({})", R"({"a": 1})", R"({"mac": "52:54:00:AA"})",
                           R"({"list": [{"x": 1}]})", R"({"off": false, "none": []})",
                           R"({"list": {"x": 1}})", R"({"rules": {"ports": [80, "@web"]}})"}) {
    EXPECT_TRUE(covers(json::parse(good), is)) << good;
  }
  for (const char* bad : {R"({"a": 2})", R"({"b": 1})", R"({"list": []})",
                          R"({"list": [{"x": 2}]})", R"({"list": [{"y": 1}]})"}) {
    EXPECT_FALSE(covers(json::parse(bad), is)) << bad;
  }
}

TEST(Same, WhateverIsNothing) {
  const auto is = json::parse(R"({"off": false, "list": [{"x": 1, "log": false}], "text": "a"})");
  EXPECT_TRUE(same(json::parse(R"({"list": [{"x": 1}], "text": "a", "none": null})"), is));
  EXPECT_FALSE(same(json::parse(R"({"list": [{"x": 1}]})"), is)) << "text is not said";
  EXPECT_FALSE(same(json::parse(R"({"list": [{"x": 1, "log": true}], "text": "a"})"), is));
  EXPECT_FALSE(same(json::parse(R"({"list": [{}], "text": "a"})"), is));
}

// A switch of which `said` is said; what it is when nothing is said is whole.
WantedThing sw(const char* said) {
  return {.place = "e1",
          .name = "sw1",
          .tenant = "default",
          .settings = json::parse(said),
          .where = "",
          .whole = json::parse(R"({"ageing_s": 300, "mirror": "", "macs": [], "ports": [
              {"name": "web", "access": "", "trunk": [], "flooded_per_s": 0}]})")};
}

TEST(Difference, IsWhatIsSaidAndTheDefaultsOfWhatIsNot) {
  auto is = json::parse(R"({"ageing_s": 60, "mirror": "web", "macs": [], "newer": 7, "ports": [
      {"name": "web", "index": 0, "access": 10}, {"name": "other", "access": 20}]})");
  const WantedThing wanted = sw(R"({"ports": [{"name": "web"}]})");
  const auto all = difference(wanted, is, true, {"web", "other"});
  ASSERT_TRUE(all);
  EXPECT_THAT(all->members, ElementsAre("ageing_s", "mirror", "access of web"));
  EXPECT_EQ(all->settings, json::parse(R"({"ageing_s": 300, "mirror": "", "ports": [
      {"name": "web", "access": ""}]})"))
      << "not what this program does not know, nor ports that the file does not name";
  EXPECT_FALSE(difference(wanted, is, false, {})) << "others made it";
  EXPECT_THAT(difference(wanted, is, false, {"web"})->members, ElementsAre("access of web"));
  EXPECT_THAT(difference(wanted, is, true, {})->members, ElementsAre("ageing_s", "mirror"));
}

TEST(Difference, OfWhatIsSaidOthersPartIsNone) {
  const auto is = json::parse(R"({"macs": [{"mac": "a", "vlan": 1}], "ports": [
      {"name": "web", "access": 10, "flooded_per_s": 5}]})");
  EXPECT_FALSE(difference(
      sw(R"({"macs": [{"mac": "a"}], "ports": [{"name": "web", "access": 10}]})"), is, false, {}));
  const auto some = difference(sw(R"({"ports": [{"name": "web", "access": 20}]})"), is, false, {});
  EXPECT_EQ(some->settings, json::parse(R"({"ports": [{"name": "web", "access": 20}]})"));
}

TEST(Difference, OfATypeThatIsNotKnownIsWhatIsSaid) {
  WantedThing wanted = sw(R"({"colour": "red", "ports": [{"name": "a"}, {"name": "b", "v": 1}]})");
  wanted.whole = json::object();
  const auto told = difference(wanted, {{"ports", {{{"name", "a"}, {"v", 2}}}}}, true, {"a"});
  EXPECT_THAT(told->members, ElementsAre("colour", "port b"));
  EXPECT_EQ(told->settings, json::parse(R"({"colour": "red", "ports": [{"name": "b", "v": 1}]})"));
}

}  // namespace
}  // namespace godwit::topology
