#include "agent/relocation_record.hh"

#include <gtest/gtest.h>

#include "os/random.hh"

namespace godwit::agent {
namespace {

RelocationRecord half_way() {
  return {.port = os::random_id<PortId>(),
          .name = "up1",
          .from = "a1",
          .described = {{"port", {{"name", "up1"}}}},
          .epoch = 7,
          .addresses = {{.address = *parse_ip("10.66.1.5"),
                         .from_locator = std::nullopt,
                         .to_locator = *parse_ip("10.99.2.9")}},
          .reached = translate::Phase::forwarded,
          .wanted = translate::Phase::flipped,
          .here = true,
          .source_told = true,
          .lead = {{"told", 3}}};
}

TEST(RelocationRecord, IsReadAsItWasWritten) {
  const nlohmann::json written = to_json(half_way());
  EXPECT_EQ(to_json(relocation_record(written)), written);
  EXPECT_EQ(written.at("strategy"), "nat");
  EXPECT_EQ(relocation_record(written).lead, half_way().lead);
}

TEST(RelocationRecord, OfAVersionThatKnewNoOtherStrategyIsOfNat) {
  nlohmann::json written = to_json(half_way());
  written.erase("strategy");
  written.erase("lead");
  const RelocationRecord record = relocation_record(written);
  EXPECT_EQ(record.strategy, Strategy::nat);
  EXPECT_TRUE(record.lead.is_null());
  EXPECT_EQ(record.addresses.size(), 1);
  EXPECT_EQ(record.wanted, translate::Phase::flipped);
}

TEST(RelocationRecord, OfAnUnknownStrategyIsDamaged) {
  nlohmann::json written = to_json(half_way());
  written["strategy"] = "pigeon";
  EXPECT_THROW(relocation_record(written), SetupError);
}

}  // namespace
}  // namespace godwit::agent
