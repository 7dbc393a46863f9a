#include "translate/rule_json.hh"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace godwit::translate {
namespace {

Ip ip(std::string_view text) { return parse_ip(text).value(); }

TEST(RuleJson, IsReadAsItWasWritten) {
  Rules rules{{.kind = RuleKind::depart, .match = ip("10.1.1.20"), .becomes = ip("10.1.4.200")},
              {.kind = RuleKind::depart,
               .match = ip("fd01:1::20"),
               .becomes = ip("fd01:4::c8"),
               .is_active = false},
              {.kind = RuleKind::arrive, .match = ip("10.1.4.200"), .becomes = ip("10.1.1.20")},
              {.kind = RuleKind::claim, .match = ip("10.1.4.200")},
              {.kind = RuleKind::answer, .match = ip("10.1.1.20"), .is_active = false}};
  EXPECT_EQ(parse_rules(to_json(rules)).value(), rules);
}

TEST(RuleJson, WhatIsTwiceIsThereOnce) {
  const auto one = R"({"kind": "claim", "match": "10.1.1.20"})"_json;
  EXPECT_EQ(parse_rules({one, one}).value().size(), 1U);
}

TEST(RuleJson, WhatNoHostCanHaveIsRefused) {
  const auto refused = [](const char* text) {
    return !parse_rules(nlohmann::json::parse(text)).has_value();
  };
  EXPECT_TRUE(refused(R"({"kind": "claim", "match": "10.1.1.20"})"));
  EXPECT_TRUE(refused("[5]"));
  EXPECT_TRUE(refused(R"([{"match": "10.1.1.20"}])"));
  EXPECT_TRUE(refused(R"([{"kind": "clam", "match": "10.1.1.20"}])"));
  EXPECT_TRUE(refused(R"([{"kind": "claim"}])"));
  EXPECT_TRUE(refused(R"([{"kind": "claim", "match": 5}])"));
  EXPECT_TRUE(refused(R"([{"kind": "claim", "match": "0.0.0.0"}])"));
  EXPECT_TRUE(refused(R"([{"kind": "claim", "match": "224.0.0.1"}])"));
  EXPECT_TRUE(refused(R"([{"kind": "claim", "match": "127.0.0.1"}])"));
  EXPECT_TRUE(refused(R"([{"kind": "claim", "match": "fe80::1"}])"));
  EXPECT_TRUE(refused(R"([{"kind": "depart", "match": "10.1.1.20"}])"));
  EXPECT_TRUE(refused(R"([{"kind": "depart", "match": "10.1.1.20", "becomes": "10.1.1.20"}])"));
  EXPECT_TRUE(refused(R"([{"kind": "depart", "match": "10.1.1.20", "becomes": "fd01::1"}])"));
  EXPECT_TRUE(refused(R"([{"kind": "claim", "match": "10.1.1.20", "staged": 1}])"));
}

TEST(RuleJson, PhasesAreReadByTheirNames) {
  for (int i = 0; i <= static_cast<int>(Phase::undone); ++i) {
    const auto phase = static_cast<Phase>(i);
    EXPECT_EQ(parse_phase(to_text(phase)).value(), phase);
  }
  EXPECT_FALSE(parse_phase("flopped"));
}

}  // namespace
}  // namespace godwit::translate
