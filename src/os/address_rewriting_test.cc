// Packets of every kind through a host that rewrites where they go. In network namespaces of the
// test's own; needs root, or is skipped.
//
//   client 10.1.0.2 ── [ device ] ── [ router ] ── 10.3.0.2 host, with the guest's address 10.9.0.5
//                      10.9.0.5 becomes            which takes packets for 10.3.0.77 and gives
//                      10.3.0.77                   them their destination back; MTU 1400
#include "os/address_rewriting.hh"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <thread>

#include "os/netlink.hh"
#include "os/nftables.hh"

namespace godwit::os {
namespace {

constexpr std::uint16_t kPort = 7007;
constexpr unsigned kSmallMtu = 1400;

Ip ip(const char* text) { return *parse_ip(text); }

struct Node {
  NetNamespace netns = NetNamespace::create();
  Netlink netlink = netns.run([] { return Netlink(); });
  AddressRewriting rewriting;
};

struct AddressRewritingTest : testing::TestWithParam<bool> {
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "namespaces need root";
    nodes.emplace();
    auto& [client, device, router, host] = *nodes;
    for (Node& node : *nodes) node.netns.run(use_addresses_at_once);
    join(client, device, 1);
    join(device, router, 2);
    join(router, host, 3);
    for (Node* node : {&device, &router}) node->netns.run(forward);
    for (const char* route : {"0.0.0.0/0", "::/0"}) {
      const bool is4 = route[0] == '0';
      client.netlink.add_route(route, is4 ? "10.1.0.1" : "fd01::1");
      router.netlink.add_route(route, is4 ? "10.2.0.2" : "fd02::2");
      host.netlink.add_route(route, is4 ? "10.3.0.1" : "fd03::1");
    }
    device.netlink.add_route("10.3.0.0/24", "10.2.0.1");
    device.netlink.add_route("fd03::/64", "fd02::1");
    router.netlink.set_mtu("right", kSmallMtu);
    host.netlink.set_mtu("left", kSmallMtu);
    for (const char* own : {"10.9.0.5/32", "fd09::5/128"}) host.netlink.add_address("lo", own);
    for (const char* locator : {"10.3.0.77/32", "fd03::77/128"}) {
      host.netlink.add_address("left", locator);
    }
    set(device, {.depart = kDepart});
    set(host, {.arrive = kArrive});
  }

  // Of the three networks; in each the one to the left is .2, or ::2, but for the last.
  static void join(Node& left, Node& right, int n) {
    left.netlink.add_veth("right", "far");
    left.netlink.move_to("far", right.netns.fd());
    right.netlink.rename("far", "left");
    const bool is_last = n == 3;
    for (const char* form : {"10.{}.0.{}/24", "fd0{}::{}/64"}) {
      left.netlink.add_address("right", fmt::format(fmt::runtime(form), n, is_last ? 1 : 2));
      right.netlink.add_address("left", fmt::format(fmt::runtime(form), n, is_last ? 2 : 1));
    }
    for (Node* node : {&left, &right}) node->netlink.set_up("lo");
    left.netlink.set_up("right");
    right.netlink.set_up("left");
  }
  // Without duplicate address detection (RFC 4862), two seconds.
  static void use_addresses_at_once() {
    std::ofstream("/proc/sys/net/ipv6/conf/default/accept_dad") << 0;
  }
  static void forward() {
    std::ofstream("/proc/sys/net/ipv4/ip_forward") << 1;
    std::ofstream("/proc/sys/net/ipv6/conf/all/forwarding") << 1;
  }
  static void set(Node& node, const Rewrites& rewrites) {
    node.netns.run([&] {
      const auto done = node.rewriting.set(rewrites);
      ASSERT_TRUE(done) << done.error().text;
      EXPECT_EQ(AddressRewriting::read().value(), rewrites);
    });
  }

  Node& client() { return (*nodes)[0]; }
  Node& device() { return (*nodes)[1]; }
  Node& host() { return (*nodes)[3]; }
  bool is4() const { return GetParam(); }
  sockaddr_storage guest() const {
    sockaddr_storage to{};
    if (is4()) {
      auto& at = reinterpret_cast<sockaddr_in&>(to);
      at = {.sin_family = AF_INET, .sin_port = htons(kPort), .sin_addr = {}, .sin_zero = {}};
      ip("10.9.0.5").write(reinterpret_cast<std::byte*>(&at.sin_addr));
    } else {
      auto& at = reinterpret_cast<sockaddr_in6&>(to);
      at = {.sin6_family = AF_INET6,
            .sin6_port = htons(kPort),
            .sin6_flowinfo = 0,
            .sin6_addr = {},
            .sin6_scope_id = 0};
      ip("fd09::5").write(reinterpret_cast<std::byte*>(&at.sin6_addr));
    }
    return to;
  }
  static socklen_t size_of(const sockaddr_storage& at) {
    return at.ss_family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
  }
  Fd open(Node& node, int type) {
    return node.netns.run([&] {
      Fd fd(::socket(is4() ? AF_INET : AF_INET6, type | SOCK_CLOEXEC, 0));
      const timeval limit{.tv_sec = 5, .tv_usec = 0};
      ::setsockopt(fd.number(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
      ::setsockopt(fd.number(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
      return fd;
    });
  }
  Fd bound_to_guest(int type) {
    Fd fd = open(host(), type);
    const auto at = guest();
    EXPECT_EQ(::bind(fd.number(), reinterpret_cast<const sockaddr*>(&at), size_of(at)), 0);
    return fd;
  }
  Fd connected(Node& from, int type) {
    Fd fd = open(from, type);
    const auto at = guest();
    EXPECT_EQ(::connect(fd.number(), reinterpret_cast<const sockaddr*>(&at), size_of(at)), 0)
        << errno_text("connect");
    return fd;
  }
  static void option(const Fd& fd, int level, int name, int value) {
    ASSERT_EQ(::setsockopt(fd.number(), level, name, &value, sizeof value), 0);
  }
  // What goes out comes back from the guest's address, through a stateful device too.
  void expect_echo(Node& from, const Fd& guest_socket) {
    const Fd fd = connected(from, SOCK_DGRAM);
    ASSERT_EQ(::send(fd.number(), "ping", 4, 0), 4);
    std::array<char, 64> buffer{};
    sockaddr_storage who{};
    socklen_t size = sizeof who;
    auto* const peer = reinterpret_cast<sockaddr*>(&who);
    ASSERT_EQ(::recvfrom(guest_socket.number(), buffer.data(), buffer.size(), 0, peer, &size), 4);
    ASSERT_EQ(::sendto(guest_socket.number(), "pong", 4, 0, peer, size), 4);
    EXPECT_EQ(::recv(fd.number(), buffer.data(), buffer.size(), 0), 4) << errno_text("recv");
  }

  static inline const std::map<Ip, Ip> kDepart{{ip("10.9.0.5"), ip("10.3.0.77")},
                                               {ip("fd09::5"), ip("fd03::77")}};
  static inline const std::map<Ip, Ip> kArrive{{ip("10.3.0.77"), ip("10.9.0.5")},
                                               {ip("fd03::77"), ip("fd09::5")}};
  std::optional<std::array<Node, 4>> nodes;
};

INSTANTIATE_TEST_SUITE_P(Families, AddressRewritingTest, testing::Bool(),
                         [](const auto& tested) { return tested.param ? "IPv4" : "IPv6"; });

TEST_P(AddressRewritingTest, PacketsFindTheGuestAndAreCounted) {
  const Fd guest_socket = bound_to_guest(SOCK_DGRAM);
  expect_echo(client(), guest_socket);
  const auto packets = device().netns.run(AddressRewriting::departed);
  EXPECT_EQ(packets.value().at(is4() ? ip("10.9.0.5") : ip("fd09::5")), 1U);
}

// Which has a route to where the address belongs.
TEST_P(AddressRewritingTest, SoDoThoseOfTheDeviceItself) {
  device().netlink.add_route(is4() ? "10.9.0.0/24" : "fd09::/64", is4() ? "10.1.0.2" : "fd01::2");
  expect_echo(device(), bound_to_guest(SOCK_DGRAM));
}

TEST_P(AddressRewritingTest, AConnectionLearnsOfTheSmallerMtuBehindTheDevice) {
  const Fd listener = bound_to_guest(SOCK_STREAM);
  ASSERT_EQ(::listen(listener.number(), 1), 0);
  const Fd fd = connected(client(), SOCK_STREAM);
  const Fd accepted(::accept(listener.number(), nullptr, nullptr));
  constexpr std::size_t kBytes = 1 << 20;
  std::thread sender([&] {
    const std::vector<char> bytes(kBytes);
    EXPECT_EQ(::send(fd.number(), bytes.data(), kBytes, MSG_NOSIGNAL),
              static_cast<ssize_t>(kBytes));
  });
  std::vector<char> got(kBytes);
  EXPECT_EQ(::recv(accepted.number(), got.data(), kBytes, MSG_WAITALL),
            static_cast<ssize_t>(kBytes));
  sender.join();
}

TEST_P(AddressRewritingTest, ErrorsQuoteTheAddressThatTheSenderKnows) {
  const int level = is4() ? IPPROTO_IP : IPPROTO_IPV6;
  const Fd fd = connected(client(), SOCK_DGRAM);
  option(fd, level, is4() ? IP_MTU_DISCOVER : IPV6_MTU_DISCOVER,
         is4() ? int{IP_PMTUDISC_DO} : int{IPV6_PMTUDISC_DO});
  option(fd, level, is4() ? IP_RECVERR : IPV6_RECVERR, 1);
  const std::array<char, 1440> large{};
  ASSERT_EQ(::send(fd.number(), large.data(), large.size(), 0), ssize_t{large.size()});
  std::array<char, 64> buffer{};
  EXPECT_EQ(::recv(fd.number(), buffer.data(), buffer.size(), 0), -1);
  EXPECT_EQ(errno, EMSGSIZE) << "from the router behind the device";
  int mtu = 0;
  socklen_t size = sizeof mtu;
  ASSERT_EQ(::getsockopt(fd.number(), level, is4() ? IP_MTU : IPV6_MTU, &mtu, &size), 0);
  EXPECT_EQ(mtu, int{kSmallMtu});
  for (const int hops : {1, 2}) {
    const Fd near = connected(client(), SOCK_DGRAM);
    option(near, level, is4() ? IP_RECVERR : IPV6_RECVERR, 1);
    option(near, level, is4() ? IP_TTL : IPV6_UNICAST_HOPS, hops);
    ASSERT_EQ(::send(near.number(), "x", 1, 0), 1);
    EXPECT_EQ(::recv(near.number(), buffer.data(), buffer.size(), 0), -1);
    EXPECT_EQ(errno, EHOSTUNREACH) << "time exceeded after hop " << hops;
  }
}

// Routers on the way may look at it.
TEST_P(AddressRewritingTest, TheQuotedHeaderSChecksumIsRight) {
  if (!is4()) GTEST_SKIP() << "IPv6 has none";
  const Fd icmp = client().netns.run(
      [] { return Fd(::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP)); });
  const Fd fd = connected(client(), SOCK_DGRAM);
  option(fd, IPPROTO_IP, IP_TTL, 2);
  ASSERT_EQ(::send(fd.number(), "x", 1, 0), 1);
  constexpr std::size_t kQuoted = 20 + 8;
  std::array<std::byte, 256> packet{};
  ASSERT_GE(::recv(icmp.number(), packet.data(), packet.size(), 0), ssize_t{kQuoted + 20});
  std::uint32_t sum = 0;
  for (std::size_t at = kQuoted; at < kQuoted + 20; at += 2) {
    sum += from_big_endian<std::uint16_t>(&packet[at]);
  }
  EXPECT_EQ((sum & 0xffff) + (sum >> 16), 0xffffU) << "RFC 1071";
}

TEST_P(AddressRewritingTest, AStatefulDeviceSeesTheGuestSAddressOnly) {
  for (Node* node : {&device(), &host()}) {
    const char* hook = node == &host() ? "input" : "forward";
    node->netns.run([&] {
      const auto done = apply_nftables(fmt::format(R"(table inet others {{
        chain c {{
          type filter hook {} priority 0; policy drop;
          ct state established accept
          ct original ip daddr 10.9.0.5 ct state new accept
          ct original ip6 daddr fd09::5 ct state new accept
          icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
        }}
      }})",
                                                   hook));
      ASSERT_TRUE(done) << done.error().text;
    });
  }
  expect_echo(client(), bound_to_guest(SOCK_DGRAM));
}

TEST_P(AddressRewritingTest, WhatIsStagedDoesNothingUntilItIsFlipped) {
  const Fd guest_socket = bound_to_guest(SOCK_DGRAM);
  set(device(), {.staged = kDepart});
  const Fd fd = connected(client(), SOCK_DGRAM);
  option(fd, is4() ? IPPROTO_IP : IPPROTO_IPV6, is4() ? IP_RECVERR : IPV6_RECVERR, 1);
  ASSERT_EQ(::send(fd.number(), "x", 1, 0), 1);
  std::array<char, 8> buffer{};
  EXPECT_EQ(::recv(fd.number(), buffer.data(), buffer.size(), 0), -1);
  EXPECT_EQ(errno, ENETUNREACH) << "the device has no route to it";
  set(device(), {.depart = kDepart});
  expect_echo(client(), guest_socket);
}

TEST_P(AddressRewritingTest, AnotherLocatorTakesTheOldOnesPlace) {
  auto moved = kDepart;
  for (auto& [from, to] : moved) to = ip(from.is4() ? "10.3.0.78" : "fd03::78");
  set(device(), {.depart = moved});
  set(device(), {.depart = kDepart, .staged = moved});
  expect_echo(client(), bound_to_guest(SOCK_DGRAM));
}

TEST_P(AddressRewritingTest, ATableThatOthersTookAwayIsMadeAnew) {
  device().netns.run([] { ASSERT_TRUE(apply_nftables("flush ruleset")); });
  EXPECT_EQ(device().netns.run(AddressRewriting::read).value(), Rewrites{});
  set(device(), {.depart = kDepart, .arrive = {{ip("10.7.0.1"), ip("10.7.0.2")}}});
  expect_echo(client(), bound_to_guest(SOCK_DGRAM));
}

TEST_P(AddressRewritingTest, WhoHasTouchedItIsFoundOut) {
  const auto is_as_set = [&] {
    return device().netns.run([&] { return device().rewriting.is_as_set().value(); });
  };
  const auto expect_found_out = [&](const char* ruleset) {
    EXPECT_TRUE(is_as_set());
    device().netns.run([&] { ASSERT_TRUE(apply_nftables(ruleset)) << ruleset; });
    EXPECT_FALSE(is_as_set()) << ruleset;
    device().rewriting = {};
    set(device(), {.depart = kDepart});
  };
  device().netns.run([] { ASSERT_TRUE(apply_nftables("table inet others {}")); });
  expect_found_out("flush ruleset");
  expect_found_out("flush chain inet godwit_translate departing");
  expect_found_out("add element inet godwit_translate depart4 { 10.9.0.9 : 10.3.0.9 }");
  expect_found_out("delete element inet godwit_translate depart6 { fd09::5 }");
  expect_echo(client(), bound_to_guest(SOCK_DGRAM));
}

// Also by one that has just been started, and has written nothing yet.
TEST_P(AddressRewritingTest, WhatCannotBeWrittenChangesNothing) {
  const Rewrites mixed{.depart = {{ip("10.9.0.6"), ip("fd03::77")}}};
  AddressRewriting newly;
  for (AddressRewriting* each : {&device().rewriting, &newly}) {
    device().netns.run([&] {
      EXPECT_FALSE(each->set(mixed));
      EXPECT_EQ(AddressRewriting::read().value(), Rewrites{.depart = kDepart});
    });
  }
  expect_echo(client(), bound_to_guest(SOCK_DGRAM));
}

TEST_P(AddressRewritingTest, OnlyItsOwnTableGoes) {
  device().netns.run([] {
    ASSERT_TRUE(apply_nftables("table inet others { chain c { }\n}"));
    ASSERT_TRUE(AddressRewriting::remove());
    ASSERT_TRUE(AddressRewriting::remove());
    const auto tables = query_nftables("list tables").value();
    EXPECT_NE(tables.find("others"), std::string::npos);
    EXPECT_EQ(tables.find("godwit"), std::string::npos);
  });
}

}  // namespace
}  // namespace godwit::os
