#include "os/endpoint.hh"

#include <gtest/gtest.h>

namespace godwit::os {
namespace {

TEST(Endpoint, TextIsParsedAndPrinted) {
  EXPECT_EQ(Endpoint::parse("10.0.0.1:4747")->text(), "10.0.0.1:4747");
  EXPECT_EQ(Endpoint::parse("[fd00::1]:80")->text(), "[fd00::1]:80");
  EXPECT_EQ(Endpoint::parse("fd00::1", 4747)->text(), "[fd00::1]:4747");
  EXPECT_EQ(Endpoint::parse("[::1]", 4747)->text(), "[::1]:4747");
  EXPECT_EQ(Endpoint::parse("10.0.0.1", 4747)->text(), "10.0.0.1:4747");
  EXPECT_EQ(*Endpoint::parse("[::ffff:10.0.0.1]:5"), *Endpoint::parse("10.0.0.1:5"));
}

TEST(Endpoint, BadTextIsRefused) {
  for (const char* text : {"", "10.0.0.1", "10.0.0:1", ":4747", "10.0.0.1:", "10.0.0.1:65536",
                           "10.0.0.1:-1", "10.0.0.1:1x", "[::1", "[::1]x", "host:1", "[]:1"}) {
    EXPECT_FALSE(Endpoint::parse(text)) << text;
  }
}

TEST(Endpoint, SockaddrsOfBothFamiliesRoundTrip) {
  sockaddr_storage raw;
  const auto v4 = *Endpoint::parse("192.0.2.7:99");
  const auto v6 = *Endpoint::parse("[2001:db8::7]:99");
  v4.to_sockaddr(raw, AF_INET);
  EXPECT_EQ(*Endpoint::from_sockaddr(raw), v4);
  v4.to_sockaddr(raw, AF_INET6);
  EXPECT_EQ(raw.ss_family, AF_INET6);
  EXPECT_EQ(*Endpoint::from_sockaddr(raw), v4);
  v6.to_sockaddr(raw, AF_INET6);
  EXPECT_EQ(*Endpoint::from_sockaddr(raw), v6);
  EXPECT_NE(std::hash<Endpoint>{}(v4), std::hash<Endpoint>{}(v6));
}

TEST(Endpoint, NamesAreResolved) {
  const auto numeric = resolve("127.0.0.1", 7);
  ASSERT_TRUE(numeric);
  EXPECT_EQ(*numeric, std::vector{Endpoint::loopback(7)});
  EXPECT_FALSE(resolve("no-such-host.invalid.", 7));
  EXPECT_EQ(parse_host_port("host.example", 4747)->host, "host.example");
}

}  // namespace
}  // namespace godwit::os
