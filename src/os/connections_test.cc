// Connections of a guest through the router before and the router after its move. In network
// namespaces of the test's own; needs root, or is skipped.
//
//              [a] ── [guest] old router [peer] ── [a]
//   10.9.0.5  guest                                peer  10.8.0.7
//              [b] ── [guest] new router [peer] ── [b]
//
// The new router knows a packet's connection or drops it.
#include "os/connections.hh"

#include <gtest/gtest.h>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <iostream>
#include <thread>

#include "os/connection_tracking.hh"
#include "os/kernel_setting.hh"
#include "os/netlink.hh"
#include "os/nftables.hh"

namespace godwit::os {
namespace {

using std::chrono::milliseconds;

constexpr std::uint16_t kGuestPort = 7001, kPeerPort = 7002;
constexpr auto kPatience = std::chrono::seconds(10);  // only a failing test has to
// Of the namespaces, so that whose timeout a connection has is seen.
constexpr std::uint32_t kShort_s = 100;
constexpr std::uint32_t kHalfDay_s = 12 * 3600, kFiveDays_s = 5 * 86400;

Ip ip(std::string_view text) { return parse_ip(text).value(); }

struct Node {
  NetNamespace netns = NetNamespace::create();
  Netlink netlink = netns.run([] { return Netlink(); });
};

struct Pair {
  Fd guest, peer;
};

struct ConnectionsTest : testing::TestWithParam<bool> {
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "namespaces need root";
    nodes.emplace();
    for (Node& node : *nodes) {
      node.netns.run([] { set_kernel("net/ipv6/conf/default/accept_dad", "0"); });
      node.netlink.set_up("lo");
    }
    join(guest(), "a", before(), "guest", 1);
    join(peer(), "a", before(), "peer", 2);
    join(guest(), "b", after(), "guest", 3);
    join(peer(), "b", after(), "peer", 4);
    for (const char* own : {"10.9.0.5/32", "fd09::5/128", "10.9.0.6/32", "fd09::6/128"}) {
      guest().netlink.add_address("lo", own);
    }
    for (const char* own : {"10.8.0.7/32", "fd08::7/128"}) peer().netlink.add_address("lo", own);
    be_router(before(), 1);
    be_router(after(), 3);
    after().netns.run([] {
      set_kernel("net/netfilter/nf_conntrack_tcp_loose", "0");
      expect_done(apply_nftables(R"(table inet firewall {
        chain c {
          type filter hook forward priority 0;
          ct state invalid drop
        }
      })"));
    });
    go_by(1);
  }
  static void join(Node& end, const std::string& its, Node& router, const char* there, int n) {
    end.netlink.add_veth(its, "far");
    end.netlink.move_to("far", router.netns.fd());
    router.netlink.rename("far", there);
    end.netlink.set_up(its);
    router.netlink.set_up(there);
    for (const char* form : {"10.{}.0.{}/24", "fd0{}::{}/64"}) {
      router.netlink.add_address(there, fmt::format(fmt::runtime(form), n, 1));
      end.netlink.add_address(its, fmt::format(fmt::runtime(form), n, 2));
    }
  }
  static void be_router(Node& router, int n) {
    router.netns.run([] {
      set_kernel("net/ipv4/ip_forward", "1");
      set_kernel("net/ipv6/conf/all/forwarding", "1");
      for (const char* each : {"tcp_timeout_established", "tcp_timeout_close_wait",
                               "tcp_timeout_fin_wait", "udp_timeout", "udp_timeout_stream"}) {
        set_kernel(fmt::format("net/netfilter/nf_conntrack_{}", each), "100");
      }
    });
    router.netlink.add_route("10.9.0.0/24", fmt::format("10.{}.0.2", n));
    router.netlink.add_route("fd09::/64", fmt::format("fd0{}::2", n));
    router.netlink.add_route("10.8.0.0/24", fmt::format("10.{}.0.2", n + 1));
    router.netlink.add_route("fd08::/64", fmt::format("fd0{}::2", n + 1));
  }
  // By the router whose first network that is.
  void go_by(int n) {
    for (const auto& [node, to4, to6, via] : {std::tuple(&guest(), "10.8.0.0/24", "fd08::/64", n),
                                              {&peer(), "10.9.0.0/24", "fd09::/64", n + 1}}) {
      node->netlink.remove_route(to4);
      node->netlink.remove_route(to6);
      node->netlink.add_route(to4, fmt::format("10.{}.0.1", via));
      node->netlink.add_route(to6, fmt::format("fd0{}::1", via));
    }
  }
  static void expect_done(const Result<>& done) { ASSERT_TRUE(done) << done.error().text; }

  Node& guest() { return (*nodes)[0]; }
  Node& before() { return (*nodes)[1]; }
  Node& after() { return (*nodes)[2]; }
  Node& peer() { return (*nodes)[3]; }
  bool is4() const { return GetParam(); }
  Ip guest_ip() const { return ip(is4() ? "10.9.0.5" : "fd09::5"); }
  Ip other_guest_ip() const { return ip(is4() ? "10.9.0.6" : "fd09::6"); }
  Ip peer_ip() const { return ip(is4() ? "10.8.0.7" : "fd08::7"); }

  static std::pair<sockaddr_storage, socklen_t> address(const Ip& at, std::uint16_t port) {
    const auto endpoint = Endpoint::parse(at.is4() ? fmt::format("{}:{}", at.text(), port)
                                                   : fmt::format("[{}]:{}", at.text(), port));
    sockaddr_storage to{};
    const auto size = endpoint->to_sockaddr(to, endpoint->family());
    return {to, size};
  }
  Fd bound(Node& node, int type, const Ip& at, std::uint16_t port, int protocol = 0) {
    return node.netns.run([&] {
      Fd fd(::socket(is4() ? AF_INET : AF_INET6, type | SOCK_CLOEXEC, protocol));
      const timeval limit{.tv_sec = 5, .tv_usec = 0};
      ::setsockopt(fd.number(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
      const int yes = 1;  // beside a connection of the same port
      ::setsockopt(fd.number(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
      const auto [to, size] = address(at, port);
      EXPECT_EQ(::bind(fd.number(), reinterpret_cast<const sockaddr*>(&to), size), 0)
          << errno_text("bind");
      return fd;
    });
  }
  static void connect(const Fd& fd, const Ip& at, std::uint16_t port) {
    const auto [to, size] = address(at, port);
    ASSERT_EQ(::connect(fd.number(), reinterpret_cast<const sockaddr*>(&to), size), 0)
        << errno_text("connect");
  }
  Pair connected(bool from_guest, const Ip& of, std::uint16_t peer_port = kPeerPort) {
    Pair pair{.guest = bound(guest(), SOCK_STREAM, of, kGuestPort),
              .peer = bound(peer(), SOCK_STREAM, peer_ip(), peer_port)};
    Fd& listener = from_guest ? pair.peer : pair.guest;
    EXPECT_EQ(::listen(listener.number(), 1), 0);
    if (from_guest) {
      connect(pair.guest, peer_ip(), peer_port);
    } else {
      connect(pair.peer, of, kGuestPort);
    }
    listener = Fd(::accept4(listener.number(), nullptr, nullptr, SOCK_CLOEXEC));
    EXPECT_GE(listener.number(), 0);
    return pair;
  }
  static void send(const Fd& from) {
    ASSERT_EQ(::send(from.number(), "word", 4, MSG_NOSIGNAL), 4) << errno_text("send");
  }
  static bool arrives(const Fd& to, int wait_ms = 5000) {
    const timeval limit{.tv_sec = wait_ms / 1000, .tv_usec = wait_ms % 1000 * 1000};
    ::setsockopt(to.number(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    std::array<char, 4> buffer{};
    return ::recv(to.number(), buffer.data(), buffer.size(), MSG_WAITALL) == 4;
  }
  static bool passes(const Fd& from, const Fd& to) {
    send(from);
    return arrives(to);
  }
  static bool ends(const Fd& from, const Fd& to) {
    EXPECT_EQ(::shutdown(from.number(), SHUT_WR), 0);
    char byte = 0;
    return ::recv(to.number(), &byte, 1, 0) == 0;
  }

  static std::vector<Connection> all(Node& router, const std::set<Ip>& of) {
    return router.netns.run([&] { return connections_of(of); });
  }
  std::vector<Connection> all(Node& router) { return all(router, {guest_ip()}); }
  // The one there is, once it is so.
  template <class So>
  Connection one(Node& router, So&& so) {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    for (;;) {
      const auto found = all(router);
      if (found.size() == 1 && so(found[0])) return found[0];
      if (std::chrono::steady_clock::now() > deadline) {
        ADD_FAILURE() << found.size() << " connections, state "
                      << (found.empty() ? 0 : int{found[0].state}) << ", timeout "
                      << (found.empty() ? 0 : found[0].timeout_s);
        return found.empty() ? Connection() : found[0];
      }
      std::this_thread::sleep_for(milliseconds(5));
    }
  }
  Connection one_in(Node& router, int state) {
    return one(router, [&](const Connection& each) { return each.state == state; });
  }
  static void track(Node& router, const std::set<Ip>& guests) {
    router.netns.run([&] { track_guests(guests); });
  }
  static void add(Node& router, const std::vector<Connection>& connections) {
    router.netns.run([&] { expect_done(add_connections(connections)); });
  }
  // One of each kind; an echo has one port.
  std::vector<Connection> of_each_kind() const {
    std::vector<Connection> kinds;
    for (const bool from_guest : {false, true}) {
      for (const int protocol : {int{IPPROTO_TCP}, int{IPPROTO_UDP}, int{IPPROTO_SCTP},
                                 is4() ? int{IPPROTO_ICMP} : int{IPPROTO_ICMPV6}}) {
        const bool is_echo = protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6;
        kinds.push_back({.protocol = static_cast<std::uint8_t>(protocol),
                         .guest = guest_ip(),
                         .peer = peer_ip(),
                         .guest_port = static_cast<std::uint16_t>(from_guest ? 5001 : 5002),
                         .peer_port = static_cast<std::uint16_t>(is_echo      ? 0
                                                                 : from_guest ? 6001
                                                                              : 6002),
                         .from_guest = from_guest,
                         .replied = true,
                         .assured = protocol == IPPROTO_TCP,
                         .timeout_s = 50000,
                         .mark = 7});
        Connection& made = kinds.back();
        if (is_echo) made.peer_port = made.guest_port;
        if (protocol == IPPROTO_TCP) made.state = TCP_CONNTRACK_ESTABLISHED;
        if (protocol == IPPROTO_SCTP) {
          made.state = 4;
          made.guest_tag = 0x01020304;
          made.peer_tag = 0x05060708;
        }
      }
    }
    std::ranges::sort(kinds);
    return kinds;
  }
  // As they were added: a second may have passed.
  static std::vector<Connection> at(std::uint32_t timeout_s, std::vector<Connection> found) {
    for (Connection& each : found) {
      EXPECT_LE(each.timeout_s, timeout_s);
      EXPECT_GE(each.timeout_s + 60, timeout_s);
      each.timeout_s = timeout_s;
    }
    std::ranges::sort(found);
    return found;
  }

  std::optional<std::array<Node, 4>> nodes;
};

INSTANTIATE_TEST_SUITE_P(Families, ConnectionsTest, testing::Bool(),
                         [](const auto& tested) { return tested.param ? "IPv4" : "IPv6"; });

TEST_P(ConnectionsTest, EachIsAsItsGuestSeesIt) {
  track(before(), {guest_ip()});
  for (const bool from_guest : {true, false}) {
    const Pair pair = connected(from_guest, guest_ip());
    const auto found = one_in(before(), TCP_CONNTRACK_ESTABLISHED);
    EXPECT_EQ(found.protocol, IPPROTO_TCP);
    EXPECT_EQ(found.guest, guest_ip());
    EXPECT_EQ(found.peer, peer_ip());
    EXPECT_EQ(found.guest_port, kGuestPort);
    EXPECT_EQ(found.peer_port, kPeerPort);
    EXPECT_EQ(found.from_guest, from_guest);
    EXPECT_TRUE(found.replied && found.assured);
    EXPECT_FALSE(found.is_over());
    const auto peers = all(before(), {peer_ip()});
    ASSERT_EQ(peers.size(), 1U);
    EXPECT_EQ(peers[0].guest_port, kPeerPort);
    EXPECT_EQ(peers[0].from_guest, !from_guest);
    EXPECT_EQ(all(before(), {peer_ip(), guest_ip()}).size(), 2U) << "each sees its own";
    EXPECT_TRUE(all(before(), {other_guest_ip()}).empty());
    for (const Fd* end : {&pair.guest, &pair.peer}) {
      const linger none{.l_onoff = 1, .l_linger = 0};  // a reset
      ::setsockopt(end->number(), SOL_SOCKET, SO_LINGER, &none, sizeof none);
    }
    before().netns.run([&] { remove_connections({found}); });
    EXPECT_TRUE(all(before()).empty());
  }
}

TEST_P(ConnectionsTest, ItIsOverWhenBothEndsAre) {
  track(before(), {guest_ip()});
  const Pair pair = connected(true, guest_ip());
  EXPECT_TRUE(ends(pair.peer, pair.guest));
  EXPECT_FALSE(one_in(before(), TCP_CONNTRACK_CLOSE_WAIT).is_over());
  EXPECT_TRUE(ends(pair.guest, pair.peer));
  EXPECT_TRUE(one_in(before(), TCP_CONNTRACK_TIME_WAIT).is_over());
}

TEST_P(ConnectionsTest, ADatagramIsRepliedOnceItIs) {
  track(before(), {guest_ip()});
  const Pair pair{.guest = bound(guest(), SOCK_DGRAM, guest_ip(), kGuestPort),
                  .peer = bound(peer(), SOCK_DGRAM, peer_ip(), kPeerPort)};
  connect(pair.guest, peer_ip(), kPeerPort);
  connect(pair.peer, guest_ip(), kGuestPort);
  EXPECT_TRUE(passes(pair.peer, pair.guest));
  const auto first = one_in(before(), 0);
  EXPECT_EQ(first.protocol, IPPROTO_UDP);
  EXPECT_FALSE(first.from_guest || first.replied);
  EXPECT_GT(first.timeout_s, 500U);
  EXPECT_TRUE(passes(pair.guest, pair.peer));
  EXPECT_TRUE(one_in(before(), 0).replied);
  EXPECT_GT(one_in(before(), 0).timeout_s, 500U);
}

TEST_P(ConnectionsTest, AnEchoHasItsIdentifier) {
  track(before(), {guest_ip()});
  for (Node* end : {&guest(), &peer()}) {
    end->netns.run([] { set_kernel("net/ipv4/ping_group_range", "0 0"); });
  }
  const int protocol = is4() ? int{IPPROTO_ICMP} : int{IPPROTO_ICMPV6};
  const Fd fd = bound(guest(), SOCK_DGRAM, guest_ip(), 0x1234, protocol);
  connect(fd, peer_ip(), 0);
  std::array<std::uint8_t, 8> echo{is4() ? std::uint8_t{ICMP_ECHO}
                                         : std::uint8_t{ICMP6_ECHO_REQUEST}};
  ASSERT_EQ(::send(fd.number(), echo.data(), echo.size(), 0), 8) << errno_text("send");
  ASSERT_EQ(::recv(fd.number(), echo.data(), echo.size(), 0), 8) << errno_text("recv");
  const auto found = one_in(before(), 0);
  EXPECT_EQ(found.protocol, protocol);
  EXPECT_EQ(found.guest_port, 0x1234);
  EXPECT_EQ(found.peer_port, 0x1234);
  EXPECT_TRUE(found.from_guest && found.replied);
}

TEST_P(ConnectionsTest, WhatIsInAZoneIsOthers) {
  track(before(), {guest_ip()});
  before().netns.run([] {
    expect_done(apply_nftables(R"(table inet others {
      chain c {
        type filter hook prerouting priority -300;
        ct zone set 5
      }
    })"));
  });
  const Pair pair = connected(true, guest_ip());
  EXPECT_TRUE(all(before()).empty());
}

TEST_P(ConnectionsTest, IdleOnesOfAGuestAreKnownForLong) {
  track(before(), {guest_ip()});
  const Pair guests = connected(false, guest_ip());
  EXPECT_GT(one_in(before(), TCP_CONNTRACK_ESTABLISHED).timeout_s, kFiveDays_s - 60);
  EXPECT_TRUE(ends(guests.peer, guests.guest));
  EXPECT_GT(one_in(before(), TCP_CONNTRACK_CLOSE_WAIT).timeout_s, kHalfDay_s - 60);
}

TEST_P(ConnectionsTest, OthersAreNotTouched) {
  track(before(), {guest_ip()});
  const Pair pair = connected(true, other_guest_ip());
  const auto found = all(before(), {other_guest_ip()});
  ASSERT_EQ(found.size(), 1U);
  EXPECT_LE(found[0].timeout_s, kShort_s);
}

TEST_P(ConnectionsTest, GuestsComeAndGoAndWhatHasBegunKeepsItsPolicy) {
  track(before(), {guest_ip()});
  const Pair pair = connected(true, guest_ip());
  for (const std::set<Ip>& guests :
       {std::set{guest_ip(), other_guest_ip()}, std::set{other_guest_ip()}}) {
    track(before(), guests);
    track(before(), guests);
    EXPECT_TRUE(passes(pair.guest, pair.peer) && passes(pair.peer, pair.guest));
    one(before(), [](const Connection& each) { return each.timeout_s > kFiveDays_s - 60; });
  }
  // The guest is none of them any more.
  const Pair newer = connected(true, guest_ip(), kPeerPort + 1);
  const auto found = all(before());
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[1].peer_port, kPeerPort + 1);
  EXPECT_LE(found[1].timeout_s, kShort_s);
}

TEST_P(ConnectionsTest, WithoutGuestsTheTableGoesAndNoOther) {
  track(after(), {guest_ip()});
  track(after(), {});
  track(after(), {});
  after().netns.run([] {
    const auto tables = query_nftables("list tables").value();
    EXPECT_EQ(tables.find("godwit"), std::string::npos);
    EXPECT_NE(tables.find("firewall"), std::string::npos);
  });
}

TEST_P(ConnectionsTest, ATableThatOthersChangedIsMadeAnew) {
  before().netns.run([] {
    expect_done(
        apply_nftables("table inet godwit_track { set guests4 { type ether_addr; }\n"
                       "chain arriving { type filter hook forward priority 0; }\n}"));
  });
  track(before(), {guest_ip()});
  const Pair pair = connected(true, guest_ip());
  EXPECT_GT(one_in(before(), TCP_CONNTRACK_ESTABLISHED).timeout_s, kFiveDays_s - 60);
}

// In mid-stream, without either having said a word since.
TEST_P(ConnectionsTest, TheNextRouterKnowsWhatIsAddedAndNothingElse) {
  track(before(), {guest_ip()});
  track(after(), {guest_ip()});
  for (const bool from_guest : {true, false}) {
    const Pair pair = connected(from_guest, guest_ip());
    EXPECT_TRUE(passes(pair.guest, pair.peer) && passes(pair.peer, pair.guest));
    const auto moved = one_in(before(), TCP_CONNTRACK_ESTABLISHED);
    go_by(3);
    send(pair.guest);
    EXPECT_FALSE(arrives(pair.peer, 500)) << "the router does not know it";
    EXPECT_TRUE(all(after()).empty());
    add(after(), {moved});
    EXPECT_TRUE(arrives(pair.peer)) << "sent again";
    EXPECT_TRUE(passes(pair.guest, pair.peer) && passes(pair.peer, pair.guest));
    EXPECT_EQ(one_in(after(), TCP_CONNTRACK_ESTABLISHED).from_guest, from_guest);
    go_by(1);
    for (Node* router : {&before(), &after()}) {
      router->netns.run([&] { remove_connections({moved}); });
    }
    const linger none{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(pair.guest.number(), SOL_SOCKET, SO_LINGER, &none, sizeof none);
    ::setsockopt(pair.peer.number(), SOL_SOCKET, SO_LINGER, &none, sizeof none);
  }
}

TEST_P(ConnectionsTest, HalfOfOneMovesToo) {
  track(before(), {guest_ip()});
  after().netns.run(
      [] { set_kernel("net/netfilter/nf_conntrack_tcp_timeout_established", "432000"); });
  const Pair pair = connected(true, guest_ip());
  EXPECT_TRUE(ends(pair.peer, pair.guest));
  add(after(), {one_in(before(), TCP_CONNTRACK_CLOSE_WAIT)});
  go_by(3);
  EXPECT_TRUE(passes(pair.guest, pair.peer));
  EXPECT_GT(one_in(after(), TCP_CONNTRACK_ESTABLISHED).timeout_s, kHalfDay_s) << "not a minute";
  EXPECT_TRUE(ends(pair.guest, pair.peer));
}

TEST_P(ConnectionsTest, EachKindIsThereAsItWasAddedUntilItIsRemoved) {
  const auto kinds = of_each_kind();
  add(after(), kinds);
  EXPECT_EQ(at(50000, all(after())), kinds);
  add(after(), kinds);
  EXPECT_EQ(at(50000, all(after())), kinds);
  const std::vector<Connection> some{kinds[0], kinds[5]};
  after().netns.run([&] {
    remove_connections(some);
    remove_connections(some);
  });
  auto rest = kinds;
  std::erase_if(rest, [&](const Connection& each) { return each == some[0] || each == some[1]; });
  EXPECT_EQ(at(50000, all(after())), rest);
}

TEST_P(ConnectionsTest, WhatIsKnownAlreadyLearnsTheRest) {
  auto kinds = of_each_kind();
  add(after(), kinds);
  for (Connection& each : kinds) {
    each.mark = 8;
    each.timeout_s = 90000;
    if (each.protocol == IPPROTO_TCP) each.state = TCP_CONNTRACK_CLOSE_WAIT;
  }
  add(after(), kinds);
  for (Connection& each : kinds) {
    if (each.protocol == IPPROTO_TCP) each.state = TCP_CONNTRACK_ESTABLISHED;
  }
  EXPECT_EQ(at(90000, all(after())), kinds) << "a state is not taken back";
  auto over = kinds;
  for (Connection& each : over) {
    each.assured = each.replied = false;
    if (each.protocol == IPPROTO_TCP) each.state = TCP_CONNTRACK_TIME_WAIT;
  }
  add(after(), over);
  for (Connection& each : kinds) {
    if (each.protocol == IPPROTO_TCP) each.state = TCP_CONNTRACK_TIME_WAIT;
  }
  EXPECT_EQ(at(90000, all(after())), kinds);
}

// Where it has been before: the windows are those of then.
TEST_P(ConnectionsTest, ALiveOneThatIsKnownAlreadyBecomesLiberal) {
  track(before(), {guest_ip()});
  track(after(), {guest_ip()});
  go_by(3);
  const Pair pair = connected(true, guest_ip());
  go_by(1);
  const std::vector<char> much(1 << 21);
  std::thread sender([&] {
    EXPECT_EQ(::send(pair.guest.number(), much.data(), much.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(much.size()));
  });
  std::vector<char> got(much.size());
  EXPECT_EQ(::recv(pair.peer.number(), got.data(), got.size(), MSG_WAITALL),
            static_cast<ssize_t>(got.size()));
  sender.join();
  auto moved = one_in(before(), TCP_CONNTRACK_ESTABLISHED);
  moved.mark = 5;
  go_by(3);
  send(pair.guest);
  EXPECT_FALSE(arrives(pair.peer, 500)) << "out of the window";
  add(after(), {moved});
  EXPECT_TRUE(arrives(pair.peer));
  EXPECT_EQ(one_in(after(), TCP_CONNTRACK_ESTABLISHED).mark, 5U);
}

TEST_P(ConnectionsTest, WhatCannotBeAddedIsSaidAndTheRestIs) {
  auto kinds = of_each_kind();
  Connection impossible = kinds[0];
  impossible.peer = ip(is4() ? "fd08::7" : "10.8.0.7");
  auto wanted = kinds;
  wanted.insert(wanted.begin() + 1, impossible);
  impossible = kinds[0];
  impossible.protocol = IPPROTO_GRE;
  wanted.push_back(impossible);
  after().netns.run([&] {
    const auto done = add_connections(wanted);
    ASSERT_FALSE(done);
    EXPECT_NE(done.error().text.find("track 10 connections: 2 could not be added: Invalid"),
              std::string::npos)
        << done.error().text;
  });
  EXPECT_EQ(at(50000, all(after())), kinds);
  after().netns.run([&] { remove_connections(wanted); });
  EXPECT_TRUE(all(after()).empty());
}

TEST_P(ConnectionsTest, TenThousandAreAddedListedAndRemoved) {
  std::vector<Connection> many;
  auto each = of_each_kind()[2];
  for (int i = 0; i < 10'000; ++i) {
    each.peer_port = static_cast<std::uint16_t>(i + 1);
    many.push_back(each);
  }
  const auto timed = [](const char* what, auto&& work) {
    const auto begun = std::chrono::steady_clock::now();
    work();
    const auto took = std::chrono::steady_clock::now() - begun;
    std::cout << what << ": " << std::chrono::duration_cast<milliseconds>(took).count() << " ms\n";
  };
  timed("10,000 added", [&] { add(after(), many); });
  for (Connection& one : many) one.mark = one.peer_port;
  timed("and again", [&] { add(after(), many); });
  std::vector<Connection> found;
  timed("listed", [&] { found = all(after()); });
  EXPECT_TRUE(at(50000, found) == many);
  timed("removed", [&] { after().netns.run([&] { remove_connections(many); }); });
  EXPECT_TRUE(all(after()).empty());
}

}  // namespace
}  // namespace godwit::os
