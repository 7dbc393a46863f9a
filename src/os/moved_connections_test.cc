// Connections of a guest that has left the host where its address is at home, by real kernels. In
// network namespaces of the test's own; needs root, or is skipped.
//
//   P, O guests ── abroad ─────────── (b) router (c) ── correspondents' host C ── Q
//                       relay         (a)    (s)
//                        ╚══ home ─────┘      └── S, whose host has no rules
//
// First the guests are at home. On P's way there is F, if the connection is older than the move,
// else L.
#include "os/moved_connections.hh"

#include <gtest/gtest.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <iostream>
#include <optional>
#include <regex>
#include <thread>

#include "os/address_rewriting.hh"
#include "os/connection_tracking.hh"
#include "os/connections.hh"
#include "os/guest_route.hh"
#include "os/kernel_setting.hh"
#include "os/netlink.hh"
#include "os/nftables.hh"
#include "os/relay_route.hh"

namespace godwit::os {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;
using Ways = std::set<std::string>;  // "b: F > Q": by which of the router's interfaces it came

constexpr unsigned kSmallMtu = 1400;
constexpr std::uint32_t kOthersMark = 0x00000005;

Ip ip(std::string_view text) { return parse_ip(text).value(); }

struct Node {
  NetNamespace netns = NetNamespace::create();
  Netlink netlink = netns.run([] { return Netlink(); });
};

enum class Kind { tcp_from_guest, tcp_to_guest, udp, echo_from_guest, echo_to_guest };
constexpr std::array kKinds{Kind::tcp_from_guest, Kind::tcp_to_guest, Kind::udp,
                            Kind::echo_from_guest, Kind::echo_to_guest};

struct Flow {
  Kind kind{};
  Fd guest{}, peer{};  // of an echo: who asks
  bool is_echo() const { return kind == Kind::echo_from_guest || kind == Kind::echo_to_guest; }
};

struct Place {
  Node* node = nullptr;
  Ip ip{};
  const char* name = "";
};

struct MovedConnectionsTest : testing::TestWithParam<bool> {
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "namespaces need root";
    nodes.emplace();
    for (Node& node : *nodes) {
      node.netns.run([] {
        set_kernel("net/ipv6/conf/default/accept_dad", "0");
        set_kernel("net/ipv4/conf/all/rp_filter", "0");
        set_kernel("net/ipv4/conf/default/rp_filter", "1");
        set_kernel("net/ipv4/ping_group_range", "0 0");
      });
      node.netlink.set_up("lo");
    }
    for (Node* node : {&router(), &home(), &abroad(), &host()}) node->netns.run(forward);
    join(home(), "up", "10.1.0.2/24", "fd01::2/64", router(), "a", "10.1.0.1/24", "fd01::1/64");
    join(abroad(), "up", "10.2.0.2/24", "fd02::2/64", router(), "b", "10.2.0.1/24", "fd02::1/64");
    join(host(), "up", "10.3.0.2/24", "fd03::2/64", router(), "c", "10.3.0.1/24", "fd03::1/64");
    join(far(), "up", "10.7.0.8/24", "fd07::8/64", router(), "s", "10.7.0.1/24", "fd07::1/64");
    join(inner(), "up", "10.8.0.7/24", "fd08::7/64", host(), "q", "10.8.0.1/24", "fd08::1/64");
    for (const auto& [node, n] :
         {std::pair(&home(), 1), {&abroad(), 2}, {&host(), 3}, {&far(), 7}, {&inner(), 8}}) {
      route(*node, "0.0.0.0/0", fmt::format("10.{}.0.1", n), "::/0", fmt::format("fd0{}::1", n));
    }
    route(router(), "10.2.0.200/29", "10.2.0.2", "fd02::200/125", "fd02::2");
    route(router(), "10.8.0.0/24", "10.3.0.2", "fd08::/64", "fd03::2");
    route(router(), "10.9.0.0/24", "10.1.0.2", "fd09::/64", "fd01::2");
    join_relay();
    plug_in(guest(), "guest", 5);
    plug_in(other(), "other", 6);
    stand_at(home());
    home().netns.run([&] { track_guests({p(), o()}); });
    watch();
  }
  static void forward() {
    set_kernel("net/ipv4/ip_forward", "1");
    set_kernel("net/ipv6/conf/all/forwarding", "1");
  }
  static void join(Node& end, const std::string& its, const char* its4, const char* its6,
                   Node& there, const std::string& theirs, const char* their4, const char* their6) {
    end.netlink.add_veth(its, "far");
    end.netlink.move_to("far", there.netns.fd());
    there.netlink.rename("far", theirs);
    for (const char* each : {its4, its6}) end.netlink.add_address(its, each);
    for (const char* each : {their4, their6}) there.netlink.add_address(theirs, each);
    end.netlink.set_up(its);
    there.netlink.set_up(theirs);
  }
  static void route(Node& node, const std::string& to4, const std::string& via4,
                    const std::string& to6, const std::string& via6) {
    node.netlink.add_route(to4, via4);
    node.netlink.add_route(to6, via6);
  }
  void join_relay() {
    home().netlink.add_veth("relay", "far");
    home().netlink.move_to("far", abroad().netns.fd());
    abroad().netlink.rename("far", "relay");
    for (Node* node : {&home(), &abroad()}) {
      node->netlink.set_up("relay");
      node->netlink.silence_ipv6("relay");  // as a TAP
      node->netns.run([&] { be_relay("relay", {p(), o()}); });
    }
  }
  // With an interface of the host that it is at.
  void plug_in(Node& node, const char* interface, int n) {
    node.netlink.add_veth("up", "far");
    node.netlink.move_to("far", home().netns.fd());
    home().netlink.rename("far", interface);
    home().netlink.set_mac(interface, kGatewayMac);
    node.netlink.add_address("up", fmt::format("10.9.0.{}/24", n));
    node.netlink.add_address("up", fmt::format("fd09::{}/128", n));
    node.netlink.set_up("up");
    node.netlink.add_route("0.0.0.0/0", "10.9.0.1");
    node.netlink.add_route("::/0", "fe80::1", "up");
  }
  void stand_at(Node& node) {
    for (const auto& [interface, address] : {std::pair("guest", p()), {"other", o()}}) {
      node.netlink.set_up(interface);
      node.netns.run([&] {
        be_gateway(interface, true);
        route_guest(interface, address);
      });
    }
  }
  void watch() {
    router().netns.run([] {
      expect_done(apply_nftables(R"(table inet watch {
        set seen4 { type ifname . ipv4_addr . ipv4_addr; flags dynamic; }
        set seen6 { type ifname . ipv6_addr . ipv6_addr; flags dynamic; }
        chain c {
          type filter hook forward priority 0;
          update @seen4 { iifname . ip saddr . ip daddr }
          update @seen6 { iifname . ip6 saddr . ip6 daddr }
        }
      })"));
    });
  }
  // Since it was asked last.
  Ways on_the_way() {
    const char* set = is4() ? "seen4" : "seen6";
    const auto listed = router().netns.run([&] {
      auto text = query_nftables(fmt::format("list set inet watch {}", set)).value();
      expect_done(apply_nftables(fmt::format("flush set inet watch {}", set)));
      return text;
    });
    static const std::regex kElement(R"re("concat": \["([^"]+)", "([^"]+)", "([^"]+)"\])re");
    Ways ways;
    for (std::sregex_iterator each(listed.begin(), listed.end(), kElement), end; each != end;
         ++each) {
      ways.insert(fmt::format("{}: {} > {}", (*each)[1].str(), name_of(ip((*each)[2].str())),
                              name_of(ip((*each)[3].str()))));
    }
    return ways;
  }
  std::string name_of(const Ip& address) const {
    for (const auto& [name, each] : {std::pair("P", p()),
                                     {"O", o()},
                                     {"F", f()},
                                     {"L", l()},
                                     {"Q", q().ip},
                                     {"C", c().ip},
                                     {"S", s().ip}}) {
      if (each == address) return name;
    }
    return address.text();
  }
  static void expect_done(const Result<>& done) { ASSERT_TRUE(done) << done.error().text; }

  Node& guest() { return (*nodes)[0]; }
  Node& other() { return (*nodes)[1]; }
  Node& abroad() { return (*nodes)[2]; }
  Node& home() { return (*nodes)[3]; }
  Node& router() { return (*nodes)[4]; }
  Node& host() { return (*nodes)[5]; }
  Node& inner() { return (*nodes)[6]; }
  Node& far() { return (*nodes)[7]; }
  bool is4() const { return GetParam(); }
  Ip of(const char* v4, const char* v6) const { return ip(is4() ? v4 : v6); }
  Ip p() const { return of("10.9.0.5", "fd09::5"); }
  Ip o() const { return of("10.9.0.6", "fd09::6"); }
  Ip f() const { return of("10.2.0.200", "fd02::200"); }
  Ip l() const { return of("10.2.0.201", "fd02::201"); }
  Ip other_f() const { return of("10.2.0.202", "fd02::202"); }
  Ip other_l() const { return of("10.2.0.203", "fd02::203"); }
  // The correspondent behind its host, the host itself, and one that knows of nothing.
  Place q() const { return {node(6), of("10.8.0.7", "fd08::7"), "Q"}; }
  Place c() const { return {node(5), of("10.3.0.2", "fd03::2"), "C"}; }
  Place s() const { return {node(7), of("10.7.0.8", "fd07::8"), "S"}; }
  Node* node(std::size_t i) const { return const_cast<Node*>(&(*nodes)[i]); }

  // ---- flows ----

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
      ::setsockopt(fd.number(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
      const int yes = 1;
      ::setsockopt(fd.number(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
      const auto [to, size] = address(at, port);
      EXPECT_EQ(::bind(fd.number(), reinterpret_cast<const sockaddr*>(&to), size), 0)
          << errno_text("bind");
      return fd;
    });
  }
  static void connect(const Fd& fd, const Ip& at, std::uint16_t port) {
    const auto [to, size] = address(at, port);
    EXPECT_EQ(::connect(fd.number(), reinterpret_cast<const sockaddr*>(&to), size), 0)
        << errno_text("connect");
  }
  static Ip who(const Fd& fd) {
    sockaddr_storage at{};
    socklen_t size = sizeof at;
    ::getpeername(fd.number(), reinterpret_cast<sockaddr*>(&at), &size);
    return ip(Endpoint::from_sockaddr(at).value().address_text());
  }
  struct End {
    Node* node = nullptr;
    Ip own{};    // its address
    Ip known{};  // as the other knows it
  };
  // Between ends with a port of their own; who begins it, and who is begun with.
  std::pair<Fd, Fd> tcp(const End& from, const End& to) {
    const std::uint16_t port = next_port++;
    const Fd listener = bound(*to.node, SOCK_STREAM, to.own, port);
    EXPECT_EQ(::listen(listener.number(), 1), 0);
    Fd begun = bound(*from.node, SOCK_STREAM, from.own, port);
    connect(begun, to.known, port);
    Fd accepted(::accept4(listener.number(), nullptr, nullptr, SOCK_CLOEXEC));
    EXPECT_EQ(who(accepted), from.known);
    const timeval limit{.tv_sec = 5, .tv_usec = 0};
    ::setsockopt(accepted.number(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return {std::move(begun), std::move(accepted)};
  }
  std::pair<Fd, Fd> udp(const End& from, const End& to) {
    const std::uint16_t port = next_port++;
    std::pair ends(bound(*from.node, SOCK_DGRAM, from.own, port),
                   bound(*to.node, SOCK_DGRAM, to.own, port));
    connect(ends.first, to.known, port);
    connect(ends.second, from.known, port);
    return ends;
  }
  Fd echo(const End& from, const End& to) {
    Fd fd = bound(*from.node, SOCK_DGRAM, from.own, next_port++,
                  is4() ? int{IPPROTO_ICMP} : int{IPPROTO_ICMPV6});
    connect(fd, to.known, 0);
    return fd;
  }
  // Of P, which the other end knows by this address.
  Flow open(Kind kind, const Place& with, const Ip& known) {
    const End guest_end{&guest(), p(), known}, peer{with.node, with.ip, with.ip};
    Flow flow{.kind = kind};
    switch (kind) {
      case Kind::tcp_from_guest:
        std::tie(flow.guest, flow.peer) = tcp(guest_end, peer);
        break;
      case Kind::tcp_to_guest:
        std::tie(flow.peer, flow.guest) = tcp(peer, guest_end);
        break;
      case Kind::udp:
        std::tie(flow.guest, flow.peer) = udp(guest_end, peer);
        break;
      case Kind::echo_from_guest:
        flow.guest = echo(guest_end, peer);
        break;
      case Kind::echo_to_guest:
        flow.peer = echo(peer, guest_end);
        break;
    }
    EXPECT_TRUE(lives(flow)) << "at first, with " << with.name;
    return flow;
  }
  std::vector<Flow> open_all(const Place& with) {
    std::vector<Flow> flows;
    for (const Kind kind : kKinds) flows.push_back(open(kind, with, p()));
    return flows;
  }
  // Both ways; connected sockets hear nothing but what comes from the address that they know.
  bool lives(const Flow& flow) const {
    if (!flow.is_echo()) return passes(flow.guest, flow.peer) && passes(flow.peer, flow.guest);
    const Fd& fd = flow.kind == Kind::echo_from_guest ? flow.guest : flow.peer;
    std::array<std::uint8_t, 8> packet{is4() ? std::uint8_t{ICMP_ECHO}
                                             : std::uint8_t{ICMP6_ECHO_REQUEST}};
    return ::send(fd.number(), packet.data(), packet.size(), 0) == 8 &&
           ::recv(fd.number(), packet.data(), packet.size(), 0) == 8;
  }
  static bool passes(const Fd& from, const Fd& to) {
    std::array<char, 4> word{'w', 'o', 'r', 'd'};
    return ::send(from.number(), word.data(), word.size(), MSG_NOSIGNAL) == 4 &&
           ::recv(to.number(), word.data(), word.size(), MSG_WAITALL) == 4;
  }
  void expect_all(const std::vector<Flow>& flows, const Ways& ways) {
    for (const Flow& flow : flows) {
      on_the_way();
      EXPECT_TRUE(lives(flow)) << "kind " << static_cast<int>(flow.kind);
      EXPECT_EQ(on_the_way(), ways) << "kind " << static_cast<int>(flow.kind);
    }
  }

  // ---- the move ----

  static void set(Node& node, const MovedRules& rules) {
    node.netns.run([&] { expect_done(set_moved_rules(rules)); });
  }
  static void add(Node& node, std::vector<Connection> connections, std::uint32_t mark) {
    for (Connection& each : connections) each.mark |= mark;
    node.netns.run([&] { expect_done(add_connections(connections)); });
  }
  std::vector<Connection> tracked(Node& node) {
    return node.netns.run([&] { return connections_of({p()}); });
  }
  MovedRules rules_abroad(bool direct) const {
    MovedRules rules{.on_the_way = {{p(), f()}},
                     .new_address = {{p(), l()}},
                     .relays = {"relay"},
                     .local = {p(), o()}};
    if (direct) rules.direct = {{p(), q().ip}, {p(), c().ip}};
    return rules;
  }
  MovedRules staged_rules() const {
    return {.coming = {{{f(), q().ip}, p()}, {{f(), c().ip}, p()}}};
  }
  MovedRules rules_at_host() const {
    MovedRules rules = staged_rules();
    rules.moved = {{{q().ip, p()}, f()}, {{c().ip, p()}, f()}};
    return rules;
  }
  // Both guests; what they were is known where they are now. The correspondents' host knows of it
  // in another function.
  void move(const MovedRules& rules) {
    auto inherited = home().netns.run([&] { return connections_of({p(), o()}); });
    for (const char* interface : {"guest", "other"}) {
      home().netlink.move_to(interface, abroad().netns.fd());
    }
    stand_at(abroad());
    add(abroad(), inherited, kInheritedMark);
    set(abroad(), rules);
    abroad().netns.run([&] {
      expect_done(
          rewriting.set({.arrive = {{f(), p()}, {l(), p()}, {other_f(), o()}, {other_l(), o()}}}));
      send_by_relay("relay", {p(), o()});
    });
    home().netns.run([&] { route_to_relay("relay", {p(), o()}); });
  }
  void tell_host(const MovedRules& rules) {
    std::vector<Connection> labelled;
    for (const Connection& each : tracked(home())) {
      if (each.peer == q().ip || each.peer == c().ip) labelled.push_back(each);
    }
    add(host(), labelled, kLabelledMark);
    set(host(), rules);
  }
  // From abroad, by a relay of its own there. The correspondents' host hears of it later.
  void come_home() {
    home().netlink.add_veth("relay2", "far");
    home().netlink.move_to("far", abroad().netns.fd());
    abroad().netlink.rename("far", "relay2");
    for (Node* node : {&home(), &abroad()}) {
      node->netlink.set_up("relay2");
      node->netlink.silence_ipv6("relay2");
      node->netns.run([&] { be_relay("relay2", {p(), o()}); });
    }
    std::vector<Connection> own, renamed;
    for (Connection& each : tracked(abroad())) {
      const bool is_own = (each.mark & kInheritedMark) != 0;
      each.mark = 0;
      (is_own ? own : renamed).push_back(each);
    }
    for (const char* interface : {"guest", "other"}) {
      abroad().netlink.move_to(interface, home().netns.fd());
    }
    stand_at(home());
    add(home(), own, kInheritedMark);
    add(home(), renamed, kInheritedMark | kRenamedMark);
    set(home(),
        {.at_home = {p()}, .relays = {"relay2"}, .renaming = {"relay2"}, .local = {p(), o()}});
    home().netns.run([&] { send_by_relay("relay2", {p()}); });
    MovedRules left = rules_abroad(true);
    left.local = {};
    set(abroad(), left);
    abroad().netns.run([&] { route_to_relay("relay2", {p(), o()}); });
  }
  void narrow(const char* link, Node& end) {
    router().netlink.set_mtu(link, kSmallMtu);
    end.netlink.set_mtu("up", kSmallMtu);
  }
  int mtu_of(const Fd& fd) const {
    int mtu = 0;
    socklen_t size = sizeof mtu;
    ::getsockopt(fd.number(), is4() ? IPPROTO_IP : IPPROTO_IPV6, is4() ? IP_MTU : IPV6_MTU, &mtu,
                 &size);
    return mtu;
  }
  void expect_shrinks(const Fd& from, const Fd& to, const std::string& what) const {
    EXPECT_EQ(mtu_of(from), 1500) << what;
    constexpr std::size_t kBytes = 1 << 20;
    std::thread sender([&] {
      const std::vector<char> bytes(kBytes);
      (void)!::send(from.number(), bytes.data(), kBytes, MSG_NOSIGNAL);
    });
    std::vector<char> got(kBytes);
    EXPECT_EQ(::recv(to.number(), got.data(), kBytes, MSG_WAITALL), ssize_t{kBytes}) << what;
    ::shutdown(to.number(), SHUT_RDWR);
    EXPECT_EQ(mtu_of(from), int{kSmallMtu}) << what;
    sender.join();
  }

  // Nobody is there: ICMP says so of the address that was asked.
  static void expect_refused(const Fd& fd) {
    ASSERT_EQ(::send(fd.number(), "x", 1, 0), 1);
    std::array<char, 8> buffer{};
    EXPECT_EQ(::recv(fd.number(), buffer.data(), buffer.size(), 0), -1);
    EXPECT_EQ(errno, ECONNREFUSED);
  }

  std::uint16_t next_port = 20001;
  AddressRewriting rewriting;
  std::optional<std::array<Node, 8>> nodes;
};

INSTANTIATE_TEST_SUITE_P(Families, MovedConnectionsTest, testing::Bool(),
                         [](const auto& tested) { return tested.param ? "IPv4" : "IPv6"; });

TEST_P(MovedConnectionsTest, OlderOnesGoWithTheAddressOfTheWay) {
  const auto with_q = open_all(q()), with_c = open_all(c());
  tell_host(rules_at_host());
  move(rules_abroad(true));
  expect_all(with_q, {"b: F > Q", "c: Q > F"});
  expect_all(with_c, {"b: F > C", "c: C > F"});
}

TEST_P(MovedConnectionsTest, WhoseHostWasNotToldTheyGoByTheRelay) {
  const auto with_q = open_all(q()), with_c = open_all(c()), with_s = open_all(s());
  move(rules_abroad(false));
  expect_all(with_q, {"a: P > Q", "c: Q > P"});
  expect_all(with_c, {"a: P > C", "c: C > P"});
  set(abroad(), rules_abroad(true));
  expect_all(with_s, {"a: P > S", "s: S > P"});
}

TEST_P(MovedConnectionsTest, WhatIsAgreedIsTakenForTheGuestsBeforeItsConnectionsGo) {
  const auto flows = open_all(q());
  tell_host(staged_rules());
  move(rules_abroad(true));
  expect_all(flows, {"b: F > Q", "c: Q > P"});
}

// The label is the connection's: others of the same correspondent go to P.
TEST_P(MovedConnectionsTest, AConnectionWithoutALabelGoesToTheGuestsAddress) {
  tell_host(rules_at_host());
  move(rules_abroad(true));
  for (const Place& with : {q(), c()}) {
    on_the_way();
    const auto [peer, accepted] = tcp({with.node, with.ip, with.ip}, {&guest(), p(), p()});
    EXPECT_TRUE(passes(peer, accepted) && passes(accepted, peer));
    const std::string name = with.name;
    EXPECT_TRUE(on_the_way().contains("c: " + name + " > P")) << name;
    EXPECT_FALSE(on_the_way().contains("c: " + name + " > F")) << name;
  }
}

TEST_P(MovedConnectionsTest, WhatTheGuestBeginsHasItsNewAddress) {
  tell_host(rules_at_host());
  move(rules_abroad(true));
  for (const Place& with : {q(), c(), s()}) {
    const std::string link = with.name == std::string("S") ? "s: " : "c: ";
    for (const Kind kind : {Kind::tcp_from_guest, Kind::udp, Kind::echo_from_guest}) {
      on_the_way();
      const Flow flow = open(kind, with, l());
      EXPECT_EQ(on_the_way(), (Ways{fmt::format("b: L > {}", with.name),
                                    fmt::format("{}{} > L", link, with.name)}));
    }
  }
}

TEST_P(MovedConnectionsTest, WhatComesToTheNewAddressIsAnsweredFromIt) {
  move(rules_abroad(false));
  for (const Kind kind : {Kind::tcp_to_guest, Kind::echo_to_guest}) {
    on_the_way();
    const Flow flow = open(kind, s(), l());
    EXPECT_EQ(on_the_way(), (Ways{"b: L > S", "s: S > L"}));
  }
}

TEST_P(MovedConnectionsTest, WhatComesByTheRelayIsAnsweredByIt) {
  move(rules_abroad(true));
  for (const Kind kind : {Kind::tcp_to_guest, Kind::echo_to_guest}) {
    on_the_way();
    const Flow flow = open(kind, s(), p());
    EXPECT_EQ(on_the_way(), (Ways{"a: P > S", "s: S > P"}));
  }
}

// Which began when the list of them had been made.
TEST_P(MovedConnectionsTest, WhatComesByTheWayIsOlderThoughNobodySaidSo) {
  std::vector<Flow> flows;
  flows.push_back(open(Kind::tcp_from_guest, q(), p()));
  flows.push_back(open(Kind::udp, q(), p()));
  tell_host(rules_at_host());
  move(rules_abroad(true));
  abroad().netns.run([&] { remove_connections(connections_of({p()})); });
  for (const Flow& flow : flows) {
    on_the_way();
    EXPECT_TRUE(passes(flow.peer, flow.guest) && passes(flow.guest, flow.peer));
    EXPECT_EQ(on_the_way(), (Ways{"b: F > Q", "c: Q > F"}));
  }
}

// The guest cannot tell the two; the older one goes on.
TEST_P(MovedConnectionsTest, ANewOneOfTheSamePortsTakesAnOlderOneNothing) {
  const Flow old = open(Kind::udp, q(), p());
  tell_host(rules_at_host());
  move(rules_abroad(true));
  const std::uint16_t port = tracked(home()).at(0).peer_port;
  const Fd newer = bound(inner(), SOCK_DGRAM, q().ip, port);
  connect(newer, l(), port);
  EXPECT_TRUE(passes(newer, old.guest));
  on_the_way();
  EXPECT_TRUE(lives(old));
  EXPECT_EQ(on_the_way(), (Ways{"b: F > Q", "c: Q > F"}));
}

TEST_P(MovedConnectionsTest, GuestsOfOneHostTalkAsEver) {
  const End guest_end{&guest(), p(), p()}, other_end{&other(), o(), o()};
  const auto old = tcp(other_end, guest_end), older = tcp(guest_end, other_end);
  const Fd old_echo = echo(other_end, guest_end);
  MovedRules rules = rules_abroad(true);
  rules.on_the_way[o()] = other_f();
  rules.new_address[o()] = other_l();
  rules.direct.insert({{p(), o()}, {o(), p()}});
  move(rules);
  on_the_way();
  for (const auto* each : {&old, &older}) {
    EXPECT_TRUE(passes(each->first, each->second) && passes(each->second, each->first));
  }
  EXPECT_TRUE(lives({.kind = Kind::echo_from_guest, .guest = old_echo.duplicate(), .peer = {}}));
  const auto newer = tcp(other_end, guest_end);
  EXPECT_TRUE(passes(newer.first, newer.second) && passes(newer.second, newer.first));
  // By the addresses that others know: each knows the other by its new one.
  const auto by_new = tcp({&other(), o(), other_l()}, {&guest(), p(), l()});
  EXPECT_TRUE(passes(by_new.first, by_new.second) && passes(by_new.second, by_new.first));
  EXPECT_EQ(on_the_way(), Ways{});
}

TEST_P(MovedConnectionsTest, SegmentsShrinkToWhatTheCorrespondentsLinkTakes) {
  const Flow with_q = open(Kind::tcp_from_guest, q(), p());
  const Flow with_c = open(Kind::tcp_from_guest, c(), p());
  tell_host(rules_at_host());
  move(rules_abroad(true));
  narrow("c", host());
  expect_shrinks(with_q.guest, with_q.peer, "the router's error, to the guest");
  expect_shrinks(with_c.guest, with_c.peer, "the router's error, to the guest");
}

// At the other end it is the host whose link is narrow that says so, of a packet rewritten already.
TEST_P(MovedConnectionsTest, AndWhatItsOwnLinkTakesACorrespondentHearsFromItsHost) {
  const Flow with_q = open(Kind::tcp_from_guest, q(), p());
  tell_host(rules_at_host());
  move(rules_abroad(true));
  narrow("c", host());
  expect_shrinks(with_q.peer, with_q.guest, "its host's error, to Q");
}

TEST_P(MovedConnectionsTest, SegmentsShrinkToWhatTheGuestsLinkTakes) {
  const Flow with_q = open(Kind::tcp_from_guest, q(), p());
  const Flow with_c = open(Kind::tcp_from_guest, c(), p());
  tell_host(rules_at_host());
  move(rules_abroad(true));
  narrow("b", abroad());
  expect_shrinks(with_q.peer, with_q.guest, "the router's error, to Q");
  expect_shrinks(with_c.peer, with_c.guest, "the router's error, to C");
}

TEST_P(MovedConnectionsTest, AndWhatItsHostsLinkTakesTheGuestHearsFromItsHost) {
  const Flow with_q = open(Kind::tcp_from_guest, q(), p());
  tell_host(rules_at_host());
  move(rules_abroad(true));
  narrow("b", abroad());
  expect_shrinks(with_q.guest, with_q.peer, "its host's error, to P");
}

TEST_P(MovedConnectionsTest, SegmentsOfNewConnectionsShrinkToo) {
  move(rules_abroad(false));
  const Flow from = open(Kind::tcp_from_guest, s(), l());
  const Flow to = open(Kind::tcp_to_guest, s(), l());
  narrow("s", far());
  expect_shrinks(from.guest, from.peer, "the router's error, to L");
  // Behind the host that rewrites.
  router().netlink.set_mtu("s", 1500);
  far().netlink.set_mtu("up", 1500);
  abroad().netlink.set_mtu("guest", kSmallMtu);
  guest().netlink.set_mtu("up", kSmallMtu);
  expect_shrinks(to.peer, to.guest, "the host's error, about L");
}

// The socket at the other end is no more.
TEST_P(MovedConnectionsTest, AnErrorOfEitherEndReachesTheOther) {
  Flow by_peer = open(Kind::udp, q(), p()), by_guest = open(Kind::udp, q(), p());
  Flow relayed = open(Kind::udp, s(), p());
  tell_host(rules_at_host());
  move(rules_abroad(true));
  by_peer.peer = {};
  expect_refused(by_peer.guest);
  by_guest.guest = {};
  expect_refused(by_guest.peer);
  relayed.guest = {};
  expect_refused(relayed.peer);
}

TEST_P(MovedConnectionsTest, AnErrorOfTheGuestsIsAboutTheAddressThatWasAsked) {
  move(rules_abroad(false));
  const Fd fd = bound(far(), SOCK_DGRAM, s().ip, 7009);
  connect(fd, l(), 7009);  // where nobody listens
  expect_refused(fd);
  // Another guest of the host, by that address.
  const Fd near = bound(other(), SOCK_DGRAM, o(), 7009);
  connect(near, l(), 7009);
  expect_refused(near);
  const Fd as_ever = bound(other(), SOCK_DGRAM, o(), 7010);
  connect(as_ever, p(), 7010);
  expect_refused(as_ever);
}

TEST_P(MovedConnectionsTest, AtHomeAgainOnlyWhatKnowsAnotherAddressIsRelayed) {
  const auto with_q = open_all(q()), with_s = open_all(s());
  tell_host(rules_at_host());
  move(rules_abroad(true));
  for (const auto* flows : {&with_q, &with_s}) {
    for (const Flow& flow : *flows) EXPECT_TRUE(lives(flow));
  }
  std::vector<Flow> renamed;
  for (const Kind kind : kKinds) renamed.push_back(open(kind, s(), l()));
  come_home();
  expect_all(renamed, {"b: L > S", "s: S > L"});
  expect_all(with_q, {"a: P > Q", "c: Q > F"});
  expect_all(with_s, {"a: P > S", "s: S > P"});
  // What was agreed is over, and the relay by which it had gone.
  set(host(), {});
  home().netlink.set_down("relay");
  expect_all(with_q, {"a: P > Q", "c: Q > P"});
  expect_all(with_s, {"a: P > S", "s: S > P"});
  expect_all(renamed, {"b: L > S", "s: S > L"});
  for (const Kind kind : {Kind::tcp_to_guest, Kind::echo_to_guest}) {
    on_the_way();
    const Flow by_new = open(kind, s(), l());
    EXPECT_EQ(on_the_way(), (Ways{"b: L > S", "s: S > L"}));
    const Flow by_own = open(kind, s(), p());
    EXPECT_EQ(on_the_way(), (Ways{"a: P > S", "s: S > P"}));
  }
  const Flow begun = open(Kind::tcp_from_guest, s(), p());
  EXPECT_EQ(on_the_way(), (Ways{"a: P > S", "s: S > P"}));
}

TEST_P(MovedConnectionsTest, WithoutARelayWhatItServedIsRefused) {
  const Flow tcp_flow = open(Kind::tcp_from_guest, s(), p());
  const Flow udp_flow = open(Kind::udp, s(), p());
  const Flow direct = open(Kind::tcp_from_guest, q(), p());
  const int yes = 1;
  ::setsockopt(udp_flow.guest.number(), is4() ? IPPROTO_IP : IPPROTO_IPV6,
               is4() ? IP_RECVERR : IPV6_RECVERR, &yes, sizeof yes);
  tell_host(rules_at_host());
  move(rules_abroad(true));
  EXPECT_TRUE(lives(tcp_flow) && lives(udp_flow));
  MovedRules rules = rules_abroad(true);
  rules.relays = {};
  set(abroad(), rules);
  abroad().netns.run([&] { stop_sending_by_relay({p(), o()}); });
  on_the_way();
  for (const Flow* flow : {&tcp_flow, &udp_flow}) {
    std::array<char, 4> buffer{};
    ASSERT_EQ(::send(flow->guest.number(), "x", 1, MSG_NOSIGNAL), 1);
    EXPECT_EQ(::recv(flow->guest.number(), buffer.data(), buffer.size(), 0), -1);
    if (flow == &tcp_flow) {
      EXPECT_EQ(errno, ECONNRESET);
    } else {
      EXPECT_EQ(errno, is4() ? EHOSTUNREACH : EACCES) << "ICMP: prohibited";
    }
  }
  EXPECT_EQ(on_the_way(), Ways{});
  EXPECT_TRUE(lives(direct));
}

TEST_P(MovedConnectionsTest, WithoutRulesTheTableGoesAndNoOther) {
  abroad().netns.run([&] {
    expect_done(apply_nftables("table inet others { chain c { }\n}"));
    EXPECT_FALSE(has_moved_rules().value());
    for (const MovedRules& rules : {rules_abroad(true), rules_at_host(), staged_rules()}) {
      expect_done(set_moved_rules(rules));
      expect_done(set_moved_rules(rules));
      EXPECT_TRUE(has_moved_rules().value());
    }
    for (int i = 0; i < 2; ++i) {
      expect_done(set_moved_rules({}));
      EXPECT_FALSE(has_moved_rules().value());
    }
    EXPECT_NE(query_nftables("list tables").value().find("others"), std::string::npos);
  });
}

TEST_P(MovedConnectionsTest, WhatIsChangedIsAsIfWrittenAnew) {
  const auto table = [] {
    const std::regex handles("\"handle\": [0-9]+");
    const auto text = query_nftables("list table inet godwit_endpoint");
    return text ? std::regex_replace(*text, handles, "") : text.error().text;
  };
  const auto made = [] { return query_nftables("list tables inet").value(); };
  MovedRules elsewhere = rules_at_host();
  for (auto& [pair, way] : elsewhere.moved) way = other_f();
  MovedRules before;
  host().netns.run([&] {
    for (const MovedRules& rules : {staged_rules(), rules_at_host(), elsewhere, staged_rules()}) {
      expect_done(set_moved_rules(rules));
      const std::string anew = table();
      expect_done(set_moved_rules(before));
      const std::string last_made = made();
      expect_done(change_moved_rules(before, rules));
      EXPECT_EQ(table(), anew);
      EXPECT_EQ(made() == last_made, !before.empty()) << "a table that was there stays";
      before = rules;
    }
    expect_done(change_moved_rules(before, {}));
    EXPECT_FALSE(has_moved_rules().value());
    EXPECT_FALSE(change_moved_rules(staged_rules(), rules_at_host()));
  });
}

TEST_P(MovedConnectionsTest, OthersBitsOfAConnectionsMarkAreKept) {
  const Flow old = open(Kind::udp, q(), p());
  tell_host(rules_at_host());
  move(rules_abroad(true));
  for (Node* node : {&abroad(), &host()}) {
    node->netns.run([] {
      expect_done(apply_nftables(fmt::format(R"(table inet others {{
        chain c {{
          type filter hook prerouting priority -150;
          ct state new ct mark set {}
        }}
      }})",
                                             kOthersMark)));
    });
  }
  const auto expect_mark = [&](std::uint32_t bits) {
    const auto found = tracked(abroad());
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].mark, bits | kOthersMark);
    abroad().netns.run([&] { remove_connections(found); });
  };
  abroad().netns.run([&] { remove_connections(connections_of({p()})); });
  EXPECT_TRUE(passes(old.peer, old.guest) && passes(old.guest, old.peer));
  expect_mark(kInheritedMark);
  EXPECT_TRUE(lives(open(Kind::echo_to_guest, s(), l())));
  expect_mark(kNewAddressMark);
  EXPECT_TRUE(lives(open(Kind::echo_to_guest, s(), p())));
  expect_mark(kInheritedMark);
  EXPECT_TRUE(lives(open(Kind::echo_from_guest, s(), l())));
  expect_mark(kNewAddressMark);  // its answer came to it
}

// Each way 1,000 a second. A packet that met no rules would let the kernel know the connection by
// other addresses.
TEST_P(MovedConnectionsTest, ChangingTheRulesLosesNoPackets) {
  const Flow flow = open(Kind::udp, q(), p());
  tell_host(rules_at_host());
  move(rules_abroad(true));
  ASSERT_TRUE(lives(flow));
  constexpr int kChanges = 40;
  struct Way {
    int from, to;
    int sent = 0, got = 0;
  };
  std::array<Way, 2> ways{
      {{flow.guest.number(), flow.peer.number()}, {flow.peer.number(), flow.guest.number()}}};
  std::atomic<bool> changing = true;
  const auto send_all = [&](Way& way) {
    for (auto next = Clock::now(); changing; ++way.sent) {
      std::this_thread::sleep_until(next += milliseconds(1));
      EXPECT_EQ(::send(way.from, "word", 4, 0), 4) << errno_text("send");
    }
    EXPECT_EQ(::send(way.from, "end", 3, 0), 3) << errno_text("send");
  };
  const auto receive_all = [](Way& way) {
    const int size = 1 << 24;  // who reads late loses nothing
    ::setsockopt(way.to, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    std::array<char, 4> word{};
    while (::recv(way.to, word.data(), word.size(), 0) == 4) ++way.got;
  };
  std::vector<std::thread> threads;
  for (Way& way : ways) {
    threads.emplace_back(receive_all, std::ref(way));
    threads.emplace_back(send_all, std::ref(way));
  }
  MovedRules here = rules_abroad(true), at_host = rules_at_host();
  here.on_the_way[o()] = other_f();
  at_host.coming[{other_f(), q().ip}] = o();
  for (int i = 0; i < kChanges; ++i) {
    set(abroad(), i % 2 == 0 ? here : rules_abroad(true));
    set(host(), i % 2 == 0 ? at_host : rules_at_host());
  }
  changing = false;
  for (std::thread& each : threads) each.join();
  for (const Way& way : ways) EXPECT_EQ(way.got, way.sent);
}

// Not what can be expected of a machine, but what the rules cost on it.
TEST_P(MovedConnectionsTest, AStreamWithTenThousandLabelledConnectionsAndWithout) {
  const Flow flow = open(Kind::tcp_from_guest, q(), p());
  const auto own = tracked(home());
  tell_host(rules_at_host());
  move(rules_abroad(true));
  std::vector<Connection> many(10'000, own.at(0));
  for (std::size_t i = 0; i < many.size(); ++i) {
    many[i].peer_port = static_cast<std::uint16_t>(i + 1);
    many[i].timeout_s = 50'000;
  }
  // Without rules it takes the same way.
  const std::string alone = p().text() + (is4() ? "/32" : "/128");
  router().netlink.add_route(alone, is4() ? "10.2.0.2" : "fd02::2");
  std::atomic<bool> streaming = true;
  std::thread sender([&] {
    const std::vector<char> bytes(1 << 16);
    while (streaming && ::send(flow.guest.number(), bytes.data(), bytes.size(), MSG_NOSIGNAL) > 0) {
    }
  });
  std::vector<char> got(1 << 18);
  bool is_broken = false;
  const auto rate = [&](milliseconds of_time) {
    const auto begun = Clock::now();
    double bytes = 0;
    while (Clock::now() < begun + of_time) {
      const auto size = ::recv(flow.peer.number(), got.data(), got.size(), 0);
      is_broken = is_broken || size <= 0;
      if (is_broken) break;
      bytes += static_cast<double>(size);
    }
    return bytes * 8 / std::chrono::duration<double>(Clock::now() - begun).count() / 1e6;
  };
  // With rules and that many other connections, with rules, and without; in turn.
  const auto change_to = [&](std::size_t kind) {
    for (const auto& [node, mark] :
         {std::pair(&host(), kLabelledMark), {&abroad(), kInheritedMark}}) {
      if (kind < 2) add(*node, own, mark);
      if (kind == 0) add(*node, many, mark);
      if (kind == 1) node->netns.run([&] { remove_connections(many); });
    }
    // The host first: nothing may come with F to one that does not know it.
    if (kind < 2) set(host(), rules_at_host());
    set(abroad(), kind < 2 ? rules_abroad(true) : MovedRules());
    if (kind == 2) set(host(), {});
  };
  constexpr std::size_t kRounds = 3;
  std::array<std::vector<double>, 3> rates;
  for (std::size_t i = 0; i < 3 * kRounds && !is_broken; ++i) {
    change_to(i % 3);
    rate(milliseconds(100));
    on_the_way();
    rates.at(i % 3).push_back(rate(milliseconds(300)));
    EXPECT_TRUE(on_the_way().contains(i % 3 < 2 ? "b: F > Q" : "b: P > Q"));
  }
  EXPECT_FALSE(is_broken) << errno_text("recv");
  streaming = false;
  ::shutdown(flow.peer.number(), SHUT_RDWR);
  sender.join();
  for (auto& each : rates) {
    each.resize(kRounds);
    std::ranges::sort(each);
  }
  constexpr std::size_t kMedian = kRounds / 2;
  std::cout << fmt::format(
      "median of {}, Mbit/s: {:.0f} with rules and 10,000 connections, {:.0f} with one, "
      "{:.0f} without rules\n",
      kRounds, rates[0][kMedian], rates[1][kMedian], rates[2][kMedian]);
}

}  // namespace
}  // namespace godwit::os
