#include "lab/config.hh"

#include <gmock/gmock.h>

#include "lab/address_plan.hh"

namespace godwit::lab {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

std::string error_of(std::string_view yaml) {
  const auto lab = parse_lab(yaml, "lab.yaml");
  return lab ? "no error" : lab.error().text;
}

TEST(LabConfig, ReadsTheDefault) {
  const auto lab = parse_lab(kDefaultLab, "default");
  ASSERT_TRUE(lab) << lab.error().text;
  EXPECT_EQ(lab->sites, (std::vector<std::string>{"east", "west"}));
  EXPECT_EQ(lab->hosts, (std::vector<Host>{{"e1", "east"}, {"client", "east"}, {"w1", "west"}}));
  ASSERT_EQ(lab->links.size(), 1U);
  EXPECT_EQ(lab->links[0].quality[0].rate, BitRate{400'000'000});
  EXPECT_EQ(lab->links[0].quality[1].delay, milliseconds(20));
  EXPECT_EQ(lab->links[0].quality[0].queue.bytes_at(BitRate{400'000'000}), 2'000'000U);
}

TEST(LabConfig, ReadsEverySettingAndWhatDiffersInOneDirection) {
  const auto lab = parse_lab(R"(
seed: 9
sites: { a: { hosts: [a1] }, b: { hosts: [] } }
links:
  l:
    between: [a, b]
    toward: { a: { rate: 1mbit, loss: 1% } }
    rate: 10mbit
    delay: 5ms
    jitter: 1ms
    reorder: true
    queue: 64KiB
    mtu: 1400
    too-big: silent
    cuts: [ { at: 30s, for: 5s } ]
)",
                             "lab.yaml");
  ASSERT_TRUE(lab) << lab.error().text;
  const Link& link = lab->links.at(0);
  EXPECT_EQ(lab->seed, 9U);
  EXPECT_EQ(link.quality[0].rate, BitRate{10'000'000});
  EXPECT_EQ(link.quality[0].loss, 0);
  EXPECT_EQ(link.quality[1].rate, BitRate{1'000'000});
  EXPECT_DOUBLE_EQ(link.quality[1].loss, 0.01);
  EXPECT_EQ(link.quality[1].jitter, milliseconds(1));
  EXPECT_TRUE(link.quality[1].reorder);
  EXPECT_TRUE(link.quality[1].mtu_silent);
  EXPECT_EQ(link.quality[1].mtu, 1400);
  EXPECT_EQ(link.quality[1].queue.size, ByteCount{65536});
  EXPECT_EQ(link.cuts, (std::vector<ScriptedCut>{{seconds(30), seconds(5)}}));
}

TEST(LabConfig, ReadsWhatASiteIsBehind) {
  const auto lab = parse_lab(R"(
sites:
  a: { hosts: [a1], nat: symmetric, nat-timeout: 5s }
  b: { hosts: [b1], ip: ipv6 }
  c: { hosts: [c1] }
)",
                             "lab.yaml");
  ASSERT_TRUE(lab) << lab.error().text;
  EXPECT_EQ(lab->networks.at("a"), (SiteNetwork{Nat::symmetric, seconds(5), IpFamilies::ipv4}));
  EXPECT_FALSE(lab->networks.at("b").has_ipv4());
  EXPECT_EQ(host_address(*lab, "a1").ipv6, "");
  EXPECT_EQ(host_address(*lab, "b1").ipv4, "");
  EXPECT_EQ(later_address(*lab, "b1", 0).ipv6, "fd67:6f64:7769:2::64");
  EXPECT_EQ(host_address(*lab, "c1").ipv4, "10.66.3.10");
  EXPECT_THAT(error_of("sites: {a: {hosts: [x], nat: full}}"), HasSubstr("none, port-restricted"));
  EXPECT_THAT(error_of("sites: {a: {hosts: [x], nat-timeout: 0s}}"), HasSubstr("1s to 24h"));
  EXPECT_THAT(error_of("sites: {a: {hosts: [x], nat: symmetric, ip: ipv6}}"),
              HasSubstr("translates IPv4"));
}

TEST(LabConfig, ARouterMayHaveAnAgent) {
  const auto lab = parse_lab(R"(
sites:
  a: { hosts: [a1] }
  b: { hosts: [], router: agent }
)",
                             "lab.yaml");
  ASSERT_TRUE(lab) << lab.error().text;
  EXPECT_FALSE(lab->networks.at("a").router_has_agent);
  EXPECT_TRUE(lab->networks.at("b").router_has_agent);
  EXPECT_EQ(error_of("sites:\n  a: { hosts: [x], router: agnet }\n"),
            "lab.yaml:2:28: 'agnet' is none of agent");
  EXPECT_EQ(error_of("sites:\n  a: { hosts: [x], nat: symmetric, router: agent }\n"),
            "lab.yaml:2:44: site a: its NAT hides its router's agent: leave one out");
  EXPECT_THAT(error_of(fmt::format("sites:\n  {}: {{ hosts: [x], router: agent }}\n",
                                   std::string(57, 'a'))),
              testing::AllOf(StartsWith("lab.yaml:2:84: 'router-aaa"), HasSubstr("shorter")));
}

TEST(LabConfig, ErrorsNameThePlaceAndTheRemedy) {
  EXPECT_THAT(error_of("sites:\n  east: { hosts: [e1, E2] }\n"),
              StartsWith("lab.yaml:2:23: 'E2' cannot"));
  EXPECT_THAT(error_of("sitez: {}\n"),
              StartsWith("lab.yaml:1:1: unknown key 'sitez': use one of sites"));
  EXPECT_THAT(error_of("sites: {east: {hosts: [e1]}, east: {hosts: []}}"), HasSubstr("twice"));
  EXPECT_THAT(error_of("sites: {east: {hosts: [e1, e1]}}"), HasSubstr("already in site east"));
  EXPECT_THAT(error_of("sites: {east: {}}"), HasSubstr("write hosts: [e1"));
  EXPECT_THAT(error_of("sites: {east: {hosts: [router-x]}}"), HasSubstr("routers"));
  EXPECT_THAT(error_of("sites: [east]"), HasSubstr("is a map"));
  EXPECT_THAT(error_of("a: [b"), StartsWith("lab.yaml:1:"));
  EXPECT_THAT(error_of(""), HasSubstr("is a map"));
  EXPECT_THAT(error_of("{}"), HasSubstr("no sites"));
}

TEST(LabConfig, ErrorsOfLinksNameTheSetting) {
  const std::string head = "sites: { a: { hosts: [a1] }, b: { hosts: [b1] } }\nlinks:\n  l:\n";
  const auto with = [&](std::string_view rest) { return error_of(head + std::string(rest)); };
  EXPECT_THAT(with("    between: [a, c]"),
              StartsWith("lab.yaml:4:18: there is no site 'c' here: use one of a, b"));
  EXPECT_THAT(with("    between: [a, a]"), HasSubstr("to itself"));
  EXPECT_THAT(with("    rate: 1mbit"), HasSubstr("write between: [east, west]"));
  EXPECT_THAT(with("    between: [a, b]\n    rate: 400"),
              StartsWith("lab.yaml:5:11: rate: '400' has no unit"));
  EXPECT_THAT(with("    between: [a, b]\n    rate: 0mbit"), HasSubstr("lab cut"));
  EXPECT_THAT(with("    between: [a, b]\n    speed: 1"),
              HasSubstr("no setting 'speed': use one of rate, delay"));
  EXPECT_THAT(with("    between: [a, b]\n    queue: 40"),
              HasSubstr("like 40ms or a size like 1MiB"));
  EXPECT_THAT(with("    between: [a, b]\n    mtu: 70000"), HasSubstr("from 576 to 9000"));
  EXPECT_THAT(with("    between: [a, b]\n    loss: 200%"), HasSubstr("more than 100%"));
  EXPECT_THAT(with("    between: [a, b]\n    delay: 1h"), HasSubstr("limit of 10 s"));
  EXPECT_THAT(with("    between: [a, b]\n    too-big: maybe"),
              HasSubstr("neither icmp nor silent"));
  EXPECT_THAT(with("    between: [a, b]\n    cuts: [ { at: 3s } ]"), HasSubstr("for: 5s"));
  EXPECT_THAT(with("    between: [a, b]\n    toward: { c: { rate: 1mbit } }"), HasSubstr("'c'"));
}

TEST(LabConfig, RefusesTooMuch) {
  std::string hosts;
  for (std::size_t i = 0; i <= kMaxHosts; ++i) hosts += fmt::format("h{},", i);
  EXPECT_THAT(error_of(fmt::format("sites: {{ a: {{ hosts: [{}] }} }}", hosts)),
              HasSubstr("at most 64"));
  EXPECT_THAT(error_of(std::string(kMaxConfigBytes + 1, ' ')), HasSubstr("more than"));
}

TEST(AddressPlan, NumbersSitesHostsAndLinks) {
  const auto lab = *parse_lab(kDefaultLab, "default");
  EXPECT_EQ(router_address(lab, "west").ipv4, "10.66.2.1");
  EXPECT_EQ(host_address(lab, "client").ipv4, "10.66.1.11");
  EXPECT_EQ(host_address(lab, "w1").ipv6, "fd67:6f64:7769:2::a");
  EXPECT_EQ(link_address(lab, 0, 1).ipv4, "10.67.0.2");
  EXPECT_THAT(hosts_file(lab), HasSubstr("10.66.2.10 w1\n"));
}

TEST(AddressPlan, RoutesTakeTheShortestDelay) {
  // a - b is slow; a - c - b is shorter. d is an island.
  const auto lab = *parse_lab(R"(
sites: { a: {hosts: [a1]}, b: {hosts: []}, c: {hosts: []}, d: {hosts: []} }
links:
  ab: { between: [a, b], delay: 50ms }
  ca: { between: [c, a], delay: 10ms }
  bc: { between: [b, c], delay: 10ms }
)",
                              "lab.yaml");
  const auto routes = routes_of(lab, "a");
  ASSERT_EQ(routes.size(), 2U);
  EXPECT_EQ(routes[0].network4, "10.66.2.0/24");
  EXPECT_EQ(routes[0].ways.at(0).link, 1U);
  EXPECT_EQ(routes[0].ways[0].via.ipv4, "10.67.1.1");  // c is the first end of ca
  EXPECT_EQ(routes[1].network6, "fd67:6f64:7769:3::/64");
  EXPECT_TRUE(routes_of(lab, "d").empty());
}

TEST(AddressPlan, RoutesTakeAllEquallyShortWays) {
  // By b or c, or c's other link, but not by e, which is as far in more hops.
  const auto lab = *parse_lab(R"(
sites: { a: {hosts: [a1]}, b: {hosts: []}, c: {hosts: []}, d: {hosts: []}, e: {hosts: []} }
links:
  ab: { between: [a, b], delay: 1ms }
  ac: { between: [a, c], delay: 1ms }
  ca: { between: [c, a], delay: 1ms }
  bd: { between: [b, d], delay: 1ms }
  cd: { between: [c, d], delay: 1ms }
  ae: { between: [a, e], delay: 1ms }
  ed: { between: [e, d], delay: 1ms, toward: { d: { delay: 1001us } } }
)",
                              "lab.yaml");
  const auto links_to = [&](std::string_view from, std::string_view network) {
    std::vector<std::size_t> links;
    for (const SiteRoute& route : routes_of(lab, from)) {
      if (route.network4 != network) continue;
      for (const SiteRoute::Way& way : route.ways) {
        const auto& ends = lab.links[way.link].sites;
        EXPECT_EQ(way.via, link_address(lab, way.link, ends[0] == from ? 1 : 0));
        links.push_back(way.link);
      }
    }
    return links;
  };
  using Links = std::vector<std::size_t>;
  EXPECT_EQ(links_to("a", "10.66.4.0/24"), (Links{0, 1, 2}));
  EXPECT_EQ(links_to("a", "10.66.3.0/24"), (Links{1, 2}));
  EXPECT_EQ(links_to("a", "10.66.2.0/24"), Links{0});
  EXPECT_EQ(links_to("b", "10.66.3.0/24"), (Links{0, 3})) << "two hops by a as by d";
  EXPECT_EQ(links_to("d", "10.66.1.0/24"), (Links{3, 4, 6})) << "this way e is as near";
}

TEST(AddressPlan, ANatHidesItsSiteAndShowsItsLinks) {
  const auto lab = *parse_lab(R"(
sites: { hub: {hosts: [h]}, a: {hosts: [a1, a2], nat: port-restricted}, b: {hosts: [b1]} }
links:
  a-hub: { between: [a, hub], delay: 1ms }
  b-hub: { between: [b, hub], delay: 1ms }
)",
                              "lab.yaml");
  const auto routes = routes_of(lab, "b");
  ASSERT_EQ(routes.size(), 2U);
  EXPECT_EQ(routes[0].network4, "10.66.1.0/24");
  EXPECT_EQ(routes[1].network4, "10.67.0.0/30");
  EXPECT_EQ(routes[1].ways.at(0).link, 1U);
  ASSERT_EQ(routes_of(lab, "hub").size(), 1U) << "its own links need no route";
  const std::string rules = nat_ruleset(lab, "a");
  EXPECT_THAT(rules, HasSubstr("oifname wan0 ip saddr 10.66.2.11 udp sport 4747 snat to "
                               "10.67.0.1:20011\n"));
}

}  // namespace
}  // namespace godwit::lab
