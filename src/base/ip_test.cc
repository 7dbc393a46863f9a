#include "base/ip.hh"

#include <gtest/gtest.h>

namespace godwit {
namespace {

TEST(Ip, ReadsAndPrintsBothKinds) {
  for (const char* text :
       {"0.0.0.0", "10.7.0.1", "255.255.255.255", "::", "::1", "fd00::1", "2001:db8:0:1:2:3:4:5"}) {
    EXPECT_EQ(parse_ip(text)->text(), text);
  }
  EXPECT_EQ(parse_ip("10.7.0.1"), Ip::of4(0x0a070001));
  EXPECT_EQ(parse_ip("::ffff:10.7.0.1"), parse_ip("10.7.0.1"));
  EXPECT_EQ(parse_ip("10.7.0.300").error().text,
            "'10.7.0.300' is no IP address, like 10.7.0.1 or fd00::1");
  for (const char* text : {"", "10.7", "10.7.0.1 ", "fd00:::1", "10.7.0.1/24"}) {
    EXPECT_FALSE(parse_ip(text)) << text;
  }
}

TEST(Ip, KnowsItsKind) {
  const auto ip = [](const char* text) { return parse_ip(text).value(); };
  EXPECT_TRUE(ip("0.0.0.0").is_unspecified() && ip("::").is_unspecified());
  EXPECT_FALSE(ip("0.0.0.1").is_unspecified() || ip("::1").is_unspecified());
  EXPECT_TRUE(ip("127.0.0.1").is_loopback() && ip("::1").is_loopback());
  EXPECT_TRUE(ip("224.0.0.1").is_multicast() && ip("ff02::1").is_multicast());
  EXPECT_TRUE(ip("169.254.0.1").is_link_local() && ip("fe80::1").is_link_local());
  EXPECT_FALSE(ip("169.253.0.1").is_link_local() || ip("fd80::1").is_link_local());
}

TEST(IpPrefix, HasAnAddressAndANetwork) {
  const IpPrefix port = parse_ip_prefix("10.7.0.1/24").value();
  EXPECT_EQ(port.address, Ip::of4(0x0a070001));
  EXPECT_EQ(port.network().text(), "10.7.0.0/24");
  EXPECT_FALSE(port.is_network());
  EXPECT_TRUE(port.contains(parse_ip("10.7.0.255").value()));
  EXPECT_FALSE(port.contains(parse_ip("10.7.1.0").value()));
  EXPECT_FALSE(port.contains(parse_ip("fd00::1").value()));
  const IpPrefix six = parse_ip_prefix("fd00:1::/32").value();
  EXPECT_TRUE(six.contains(parse_ip("fd00:1:ffff::1").value()));
  EXPECT_FALSE(six.contains(parse_ip("fd00:2::").value()));
  EXPECT_TRUE(parse_ip_prefix("::/0")->contains(parse_ip("fd00::1").value()));
  EXPECT_TRUE(parse_ip_prefix("0.0.0.0/0")->contains(parse_ip("10.7.0.1").value()));
  EXPECT_FALSE(parse_ip_prefix("::/0")->contains(parse_ip("10.7.0.1").value()));
  EXPECT_TRUE(parse_ip_prefix("fd00::1:0/112")->contains(parse_ip("fd00::1:ffff").value()));
  EXPECT_EQ(parse_ip_prefix("10.7.0.1")->length, 32);
  EXPECT_EQ(parse_ip_prefix("fd00::1")->text(), "fd00::1/128");
  for (const char* text : {"10.7.0.0/33", "fd00::/129", "10.7.0.0/", "10.7.0.0/x", "/24"}) {
    EXPECT_FALSE(parse_ip_prefix(text)) << text;
  }
}

}  // namespace
}  // namespace godwit
