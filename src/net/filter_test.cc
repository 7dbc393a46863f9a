#include "net/filter.hh"

#include <gtest/gtest.h>

#include "net/tracker_testing.hh"

namespace godwit::net {
namespace {

const FilterSubject kUdpOut{.in = 1,
                            .out = 0,
                            .tuple = {.source = ip("10.7.0.2"),
                                      .destination = ip("198.51.100.9"),
                                      .source_port = 4000,
                                      .destination_port = 53,
                                      .protocol = kUdp},
                            .bytes = 40};

bool fits(const FilterRule& rule, const FilterSubject& subject) {
  return Filter({.rules = {rule}, .otherwise = Action::drop}).judge(subject).empty();
}
FilterSubject changed(auto change) {
  FilterSubject subject = kUdpOut;
  change(subject);
  return subject;
}

TEST(Filter, EachPartOfARuleHasToFit) {
  EXPECT_TRUE(fits({}, kUdpOut));
  EXPECT_TRUE(fits({.in = {2, 1}}, kUdpOut));
  EXPECT_FALSE(fits({.in = {2, 0}}, kUdpOut));
  EXPECT_TRUE(fits({.out = {0}}, kUdpOut));
  EXPECT_FALSE(fits({.out = {kItself}}, kUdpOut));
  EXPECT_TRUE(fits({.out = {kItself}}, changed([](auto& s) { s.out = kItself; })));
  EXPECT_TRUE(fits({.from = {prefix("fd00::/8"), prefix("10.7.0.0/24")}}, kUdpOut));
  EXPECT_FALSE(fits({.from = {prefix("10.7.1.0/24")}}, kUdpOut));
  EXPECT_TRUE(fits({.to = {prefix("0.0.0.0/0")}}, kUdpOut));
  EXPECT_FALSE(fits({.to = {prefix("::/0")}}, kUdpOut));
  EXPECT_FALSE(fits({.to = {prefix("10.7.0.2")}}, kUdpOut));
  EXPECT_TRUE(fits({.protocol = kUdp}, kUdpOut));
  EXPECT_FALSE(fits({.protocol = kTcp}, kUdpOut));
  EXPECT_TRUE(fits({.protocol = kUdp, .source_ports = {{4000, 4000}}}, kUdpOut));
  EXPECT_FALSE(fits({.protocol = kUdp, .source_ports = {{4001, 65535}, {0, 3999}}}, kUdpOut));
  EXPECT_TRUE(fits({.protocol = kUdp, .destination_ports = {{80, 80}, {50, 60}}}, kUdpOut));
  EXPECT_FALSE(fits({.protocol = kUdp, .destination_ports = {{54, 60}}}, kUdpOut));
}

TEST(Filter, IcmpIsOfBothFamilies) {
  for (const std::uint8_t protocol : {std::uint8_t{kIcmp}, std::uint8_t{kIcmp6}}) {
    const FilterSubject ping = changed([&](auto& s) {
      s.tuple.protocol = protocol;
      s.icmp_type = 8;
    });
    EXPECT_TRUE(fits({.protocol = kIcmp}, ping));
    EXPECT_EQ(fits({.protocol = kIcmp6}, ping), protocol == kIcmp6);
    EXPECT_TRUE(fits({.protocol = kIcmp, .icmp_types = {128, 8}}, ping));
    EXPECT_FALSE(fits({.protocol = kIcmp, .icmp_types = {0}}, ping));
  }
}

TEST(Filter, ARuleIsAskedAboutTheStatesThatItNames) {
  Filter filter({.rules = {{.action = Action::drop, .states = kEstablished}}});
  EXPECT_TRUE(filter.asks_about(kEstablished));
  EXPECT_FALSE(filter.asks_about(kRelated));
  EXPECT_EQ(filter.judge(kUdpOut), "");
  EXPECT_EQ(filter.judge(changed([](auto& s) { s.state = kEstablished; })), "rule");
  EXPECT_EQ(filter.judge(changed([](auto& s) { s.state = kRelated; })), "");
  Filter closed({.otherwise = Action::drop});
  EXPECT_EQ(closed.judge(kUdpOut), "policy");
  EXPECT_EQ(closed.judge(changed([](auto& s) { s.state = kEstablished; })), "");
}

TEST(Filter, TheFirstThatFitsDecidesAndCounts) {
  Filter filter({.rules = {{.action = Action::reject, .log = true, .protocol = kTcp},
                           {.protocol = kUdp},
                           {.action = Action::drop}},
                 .otherwise = Action::reject});
  EXPECT_EQ(filter.judge(kUdpOut), "");
  const FilterSubject tcp = changed([](auto& s) { s.tuple.protocol = kTcp; });
  EXPECT_EQ(filter.judge(tcp), "reject");
  EXPECT_EQ(filter.judge(changed([](auto& s) { s.tuple.protocol = 47; })), "rule");
  EXPECT_TRUE(filter.refuses(tcp));
  const RuleCounters counted{.packets = 1, .bytes = 40}, logged{1, 40, 1};
  EXPECT_EQ(filter.counters(), (std::vector<RuleCounters>{logged, counted, counted}));
  filter.configure({.rules = {{.protocol = kUdp}, {.protocol = kIcmp}}});
  EXPECT_EQ(filter.counters(), (std::vector<RuleCounters>{counted, {}})) << "the same rule";
}

}  // namespace
}  // namespace godwit::net
