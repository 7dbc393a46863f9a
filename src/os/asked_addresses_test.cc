// Answers of a guest with addresses of several networks, by real kernels. In network namespaces of
// the test's own; needs root, or is skipped.
//
//   guest, P ── one ┐
//          N ── two ┴ host ── far, Q
//
// The guest's way out is by N. Connected sockets at Q hear only who they have asked.
#include "os/asked_addresses.hh"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <optional>
#include <regex>

#include "os/connection_tracking.hh"
#include "os/endpoint.hh"
#include "os/guest_route.hh"
#include "os/kernel_setting.hh"
#include "os/netlink.hh"
#include "os/netns.hh"
#include "os/nftables.hh"

namespace godwit::os {
namespace {

constexpr std::uint16_t kPort = 7007;

Ip ip(std::string_view text) { return parse_ip(text).value(); }
void expect_done(const Result<>& done) { EXPECT_TRUE(done) << done.error().text; }

struct Node {
  NetNamespace netns = NetNamespace::create();
  Netlink netlink = netns.run([] { return Netlink(); });
};

struct AskedAddressesTest : testing::TestWithParam<bool> {
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "namespaces need root";
    nodes.emplace();
    for (Node& node : *nodes) {
      const bool is_host = &node == &host();
      node.netns.run([&] {
        set_kernel("net/ipv6/conf/default/accept_dad", "0");
        set_kernel("net/ipv4/conf/all/rp_filter", "0");
        set_kernel("net/ipv4/conf/default/rp_filter", is_host ? "1" : "0");
      });
      node.netlink.set_up("lo");
    }
    join(far(), "up", "10.3.0.7/24", "fd03::7/64", "far");
    host().netlink.add_address("far", "10.3.0.1/24");
    host().netlink.add_address("far", "fd03::1/64");
    far().netlink.add_route("0.0.0.0/0", "10.3.0.1");
    far().netlink.add_route("::/0", "fd03::1");
    host().netlink.add_route("0.0.0.0/0", "10.3.0.7");
    join(guest(), "p", "10.9.0.5/24", "fd09::5/128", "one");
    join(guest(), "o", "10.8.0.5/24", "fd08::5/128", "three");
    join(guest(), "n", "10.2.0.5/24", "fd02::5/128", "two");
    guest().netlink.add_route("0.0.0.0/0", "10.2.0.1");
    guest().netlink.add_route("::/0", "fe80::1", "n");
    host().netns.run([&] {
      for (const auto& [interface, address] :
           {std::pair("one", p()), {"two", n()}, {"three", o()}}) {
        be_gateway(interface, true);
        route_guest(interface, address);
      }
      track_guests({p(), n(), o()});
    });
    server = bound(guest(), is4() ? ip("0.0.0.0") : ip("::"), kPort);
  }
  void join(Node& end, const std::string& its, const char* its4, const char* its6,
            const std::string& at_host) {
    end.netlink.add_veth(its, "far-end");
    end.netlink.move_to("far-end", host().netns.fd());
    host().netlink.rename("far-end", at_host);
    host().netlink.set_mac(at_host, kGatewayMac);
    for (const char* each : {its4, its6}) end.netlink.add_address(its, each);
    end.netlink.set_up(its);
    host().netlink.set_up(at_host);
  }
  Node& guest() { return (*nodes)[0]; }
  Node& host() { return (*nodes)[1]; }
  Node& far() { return (*nodes)[2]; }
  bool is4() const { return GetParam(); }
  Ip of(const char* v4, const char* v6) const { return ip(is4() ? v4 : v6); }
  Ip p() const { return of("10.9.0.5", "fd09::5"); }
  Ip o() const { return of("10.8.0.5", "fd08::5"); }
  Ip n() const { return of("10.2.0.5", "fd02::5"); }
  Ip q() const { return of("10.3.0.7", "fd03::7"); }

  std::vector<ManyHomed> guests(const std::set<Ip>& others) const {
    return {{.chosen = n(), .interface = "two", .others = others}};
  }
  void set(const std::vector<ManyHomed>& guests) {
    host().netns.run([&] { expect_done(set_asked_rules(guests)); });
  }
  static std::pair<sockaddr_storage, socklen_t> address(const Ip& at, std::uint16_t port) {
    const auto endpoint = Endpoint::parse(at.is4() ? fmt::format("{}:{}", at.text(), port)
                                                   : fmt::format("[{}]:{}", at.text(), port));
    sockaddr_storage to{};
    const auto size = endpoint->to_sockaddr(to, endpoint->family());
    return {to, size};
  }
  Fd bound(Node& node, const Ip& at, std::uint16_t port) {
    return node.netns.run([&] {
      Fd fd(::socket(is4() ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
      const timeval limit{.tv_sec = 0, .tv_usec = 300'000};
      ::setsockopt(fd.number(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
      const auto [to, size] = address(at, port);
      EXPECT_EQ(::bind(fd.number(), reinterpret_cast<const sockaddr*>(&to), size), 0)
          << errno_text("bind");
      return fd;
    });
  }
  // Q's, with a port of its own.
  Fd client(const Ip& of_guest) {
    Fd fd = bound(far(), q(), next_port++);
    const auto [to, size] = address(of_guest, kPort);
    EXPECT_EQ(::connect(fd.number(), reinterpret_cast<const sockaddr*>(&to), size), 0);
    return fd;
  }
  // A datagram to the guest, and its answer; whether that is heard.
  bool answers(const Fd& client, std::size_t bytes = 4) {
    std::vector<char> word(bytes, 'w');
    if (::send(client.number(), word.data(), bytes, 0) != static_cast<ssize_t>(bytes)) return false;
    sockaddr_storage who{};
    socklen_t size = sizeof who;
    const auto got = ::recvfrom(server.number(), word.data(), bytes, 0,
                                reinterpret_cast<sockaddr*>(&who), &size);
    if (got != static_cast<ssize_t>(bytes)) return false;
    (void)::sendto(server.number(), word.data(), bytes, 0, reinterpret_cast<sockaddr*>(&who), size);
    return hears(client, bytes);
  }
  static bool hears(const Fd& fd, std::size_t bytes = 4) {
    std::vector<char> word(bytes);
    return ::recv(fd.number(), word.data(), bytes, 0) == static_cast<ssize_t>(bytes);
  }
  void send(int from, std::uint16_t port) {
    const auto [to, size] = address(q(), port);
    EXPECT_EQ(::sendto(from, "word", 4, 0, reinterpret_cast<const sockaddr*>(&to), size), 4);
  }
  // Whom Q sees.
  static std::string sender_to(const Fd& fd) {
    std::array<char, 4> word{};
    sockaddr_storage who{};
    socklen_t size = sizeof who;
    if (::recvfrom(fd.number(), word.data(), word.size(), 0, reinterpret_cast<sockaddr*>(&who),
                   &size) != 4) {
      return "nobody";
    }
    return Endpoint::from_sockaddr(who).value().address_text();
  }
  std::string asked() {
    return host().netns.run([&] {
      return query_nftables(is4() ? "list set inet godwit_asked asked4"
                                  : "list set inet godwit_asked asked6")
          .value_or("");
    });
  }

  std::uint16_t next_port = 20001;
  Fd server;
  std::optional<std::array<Node, 3>> nodes;
};

INSTANTIATE_TEST_SUITE_P(Families, AskedAddressesTest, testing::Bool(),
                         [](const auto& tested) { return tested.param ? "IPv4" : "IPv6"; });

TEST_P(AskedAddressesTest, AnAnswerHasTheAddressThatWasAsked) {
  const Fd older = client(p()), newer = client(n());
  EXPECT_FALSE(answers(older)) << "by itself";
  EXPECT_TRUE(answers(newer));
  set(guests({p()}));
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(answers(older));
    EXPECT_TRUE(answers(newer));
  }
  EXPECT_TRUE(answers(client(p()))) << "that asks for the first time";
  EXPECT_TRUE(answers(older, 4000)) << "in fragments";
}

TEST_P(AskedAddressesTest, WhatBeginsAnewHasTheChosenOne) {
  set(guests({p()}));
  EXPECT_TRUE(answers(client(p())));
  const Fd peer = bound(far(), q(), next_port);
  const Fd fresh = bound(guest(), is4() ? ip("0.0.0.0") : ip("::"), 0);
  for (const int each : {fresh.number(), server.number()}) {
    send(each, next_port);
    EXPECT_EQ(sender_to(peer), n().text());
  }
}

TEST_P(AskedAddressesTest, EachOfManyAddresses) {
  set(guests({p(), o()}));
  for (int i = 0; i < 2; ++i) {
    for (const Ip& each : {p(), n(), o()}) EXPECT_TRUE(answers(client(each))) << each.text();
  }
  const Fd peer = bound(far(), q(), next_port);
  send(server.number(), next_port);
  EXPECT_EQ(sender_to(peer), n().text());
}

// The guest's kernel keeps to one, and the host cannot tell which is answered.
TEST_P(AskedAddressesTest, WhoAsksBothIsAnsweredByTheChosenOne) {
  set(guests({p()}));
  const Fd older = client(p());
  EXPECT_TRUE(answers(older));
  const auto [to, size] = address(n(), kPort);
  EXPECT_EQ(::connect(older.number(), reinterpret_cast<const sockaddr*>(&to), size), 0);
  EXPECT_TRUE(answers(older));
}

// Who has said nothing since, or never: the guest sends first.
TEST_P(AskedAddressesTest, WhatTrackingKnowsIsRemembered) {
  const Fd peer = client(p());
  const auto port = static_cast<std::uint16_t>(next_port - 1);
  const Connection known{.protocol = IPPROTO_UDP,
                         .guest = p(),
                         .peer = q(),
                         .guest_port = kPort,
                         .peer_port = port,
                         .from_guest = true,
                         .timeout_s = 60};
  Connection chosen = known, tcp = known;
  chosen.guest = n();
  tcp.protocol = IPPROTO_TCP;
  tcp.peer_port = 4711;
  set(guests({p()}));
  host().netns.run([&] { expect_done(remember_asked(guests({p()}), {known, chosen, tcp})); });
  send(server.number(), port);
  EXPECT_TRUE(hears(peer));
  EXPECT_EQ(asked().find("4711"), std::string::npos);
  EXPECT_EQ(asked().find(n().text()), std::string::npos);
}

// A server that knows what was asked says so itself.
TEST_P(AskedAddressesTest, WhatHasAnotherThanTheChosenAddressKeepsIt) {
  set(guests({p()}));
  const Fd peer = client(p());
  const Fd own = bound(guest(), p(), kPort + 1);
  const auto port = static_cast<std::uint16_t>(next_port - 1);
  const auto [to, size] = address(p(), kPort + 1);
  EXPECT_EQ(::connect(peer.number(), reinterpret_cast<const sockaddr*>(&to), size), 0);
  guest().netns.run(
      [&] { EXPECT_EQ(::setsockopt(own.number(), SOL_SOCKET, SO_BINDTODEVICE, "p", 2), 0); });
  if (is4()) {
    guest().netlink.add_route("10.3.0.0/24", "10.9.0.1", "p");
  } else {
    guest().netlink.add_route("fd03::/64", "fe80::1", "p");
  }
  send(own.number(), port);
  EXPECT_TRUE(hears(peer));
}

TEST_P(AskedAddressesTest, ChangesForgetNothingAndWithoutGuestsTheTableGoes) {
  set(guests({p()}));
  const Fd older = client(p());
  EXPECT_TRUE(answers(older));
  const std::string before = asked();
  EXPECT_NE(before.find("20001"), std::string::npos) << before;
  set(guests({p(), o()}));
  set(guests({p()}));
  EXPECT_NE(asked().find("20001"), std::string::npos);
  const auto port = static_cast<std::uint16_t>(next_port - 1);
  send(server.number(), port);
  EXPECT_TRUE(hears(older));
  host().netns.run([&] {
    EXPECT_TRUE(has_asked_rules().value());
    for (int i = 0; i < 2; ++i) {
      expect_done(set_asked_rules({}));
      EXPECT_FALSE(has_asked_rules().value());
    }
    EXPECT_FALSE(remember_asked({}, {{.protocol = IPPROTO_UDP, .guest = p(), .peer = q()}}));
  });
}

}  // namespace
}  // namespace godwit::os
