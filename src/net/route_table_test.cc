#include "net/route_table.hh"

#include <gtest/gtest.h>

#include <random>

namespace godwit::net {
namespace {

IpPrefix prefix(const char* text) { return parse_ip_prefix(text).value(); }
Ip ip(const char* text) { return parse_ip(text).value(); }

TEST(RouteTable, TakesTheLongest) {
  const RouteTable table({{prefix("10.0.0.0/8"), 1},
                          {prefix("10.7.0.0/16"), 2},
                          {prefix("10.7.0.128/25"), 3},
                          {prefix("10.7.0.129"), 4},
                          {prefix("fd00::/8"), 5},
                          {prefix("fd00:7::/32"), 6}});
  EXPECT_EQ(table.find(ip("10.255.255.255")), 1u);
  EXPECT_EQ(table.find(ip("10.7.0.127")), 2u);
  EXPECT_EQ(table.find(ip("10.7.0.128")), 3u);
  EXPECT_EQ(table.find(ip("10.7.0.129")), 4u);
  EXPECT_EQ(table.find(ip("10.7.0.130")), 3u);
  EXPECT_EQ(table.find(ip("10.7.1.0")), 2u);
  EXPECT_EQ(table.find(ip("11.0.0.0")), RouteTable::kNone);
  EXPECT_EQ(table.find(ip("9.255.255.255")), RouteTable::kNone);
  EXPECT_EQ(table.find(ip("fd00:7::1")), 6u);
  EXPECT_EQ(table.find(ip("fd00:8::1")), 5u);
  EXPECT_EQ(table.find(ip("fe00::1")), RouteTable::kNone);
  EXPECT_EQ(RouteTable().find(ip("10.0.0.1")), RouteTable::kNone);
}

TEST(RouteTable, DefaultsAreOfTheirKind) {
  const RouteTable table({{prefix("0.0.0.0/0"), 1}, {prefix("::/0"), 2}});
  for (const char* each : {"0.0.0.0", "255.255.255.255", "10.7.0.1"}) {
    EXPECT_EQ(table.find(ip(each)), 1u);
  }
  for (const char* each : {"::", "fd00::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}) {
    EXPECT_EQ(table.find(ip(each)), 2u);
  }
}

TEST(RouteTable, TheLastOfEqualOnesCounts) {
  EXPECT_EQ(RouteTable({{prefix("10.0.0.0/8"), 1}, {prefix("10.0.0.0/8"), 2}}).find(ip("10.1.1.1")),
            2u);
}

// Against looking at each: also with as many as have an index.
TEST(RouteTable, AgreesWithASearchOfAll) {
  std::mt19937_64 random(11);
  for (const std::size_t count : {1u, 5u, 60u, 3000u}) {
    std::vector<std::pair<IpPrefix, RouteTable::Value>> routes;
    const auto some_ip = [&] {
      // Near each other, so that prefixes are in one another.
      if (random() % 2 == 0) {
        return Ip::of4(
            static_cast<std::uint32_t>(0x0a000000 | (random() % 0x300 << 12) | (random() & 0xf)));
      }
      return Ip{0xfd00000000000000 | random() % 0x300, random() % 4 << 62 | (random() & 0xf)};
    };
    for (std::uint32_t i = 0; i < count; ++i) {
      const Ip address = some_ip();
      const auto length = static_cast<std::uint8_t>(random() % (address.is4() ? 33 : 129));
      const IpPrefix network = IpPrefix{address, length}.network();
      std::erase_if(routes, [&](const auto& each) { return each.first == network; });
      routes.emplace_back(network, i);
    }
    const RouteTable table(routes);
    for (int i = 0; i < 3000; ++i) {
      const Ip destination = some_ip();
      auto expected = RouteTable::kNone;
      int longest = -1;
      for (const auto& [network, value] : routes) {
        if (!network.contains(destination) || network.length <= longest) continue;
        longest = network.length;
        expected = value;
      }
      ASSERT_EQ(table.find(destination), expected) << destination.text() << " of " << count;
    }
  }
}

}  // namespace
}  // namespace godwit::net
