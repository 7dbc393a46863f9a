#include "os/guest_route.hh"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <fstream>

#include "os/address_claim.hh"
#include "os/kernel_setting.hh"
#include "os/netlink.hh"
#include "os/netns.hh"
#include "os/nftables.hh"
#include "os/segment.hh"

namespace godwit::os {
namespace {

struct Node {
  NetNamespace netns = NetNamespace::create();
  Netlink netlink = netns.run([] { return Netlink(); });
};

Ip ip(std::string_view text) { return parse_ip(text).value(); }

// neighbour [rack] --- [rack] host [guest] --- [eth0] guest, which has an address of the rack's and
// thinks to be there
struct GuestRouteTest : testing::TestWithParam<bool> {
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "namespaces need root";
    nodes.emplace();
    for (Node* node : {&neighbour(), &host(), &guest()}) {
      node->netns.run([] { set_kernel("net/ipv6/conf/default/accept_dad", "0"); });
      node->netlink.set_up("lo");
    }
    join(neighbour(), "rack", host(), "rack");
    join(guest(), "eth0", host(), "guest");
    for (const char* each : {"10.1.1.30/24", "fd01::30/64"}) {
      neighbour().netlink.add_address("rack", each);
    }
    for (const char* each : {"10.1.1.10/24", "fd01::10/64"}) {
      host().netlink.add_address("rack", each);
    }
    for (const char* each : {"10.1.1.20/24", "fd01::20/128"}) {
      guest().netlink.add_address("eth0", each);
    }
    host().netns.run([] { be_gateway("guest", true); });
    guest().netlink.add_route("::/0", "fe80::1", "eth0");
  }
  static void join(Node& a, const std::string& its, Node& b, const std::string& others) {
    a.netlink.add_veth(its, "far");
    a.netlink.move_to("far", b.netns.fd());
    b.netlink.rename("far", others);
    a.netlink.set_up(its);
    b.netlink.set_up(others);
  }

  Node& neighbour() { return (*nodes)[0]; }
  Node& host() { return (*nodes)[1]; }
  Node& guest() { return (*nodes)[2]; }
  bool is4() const { return GetParam(); }
  Ip guest_ip() const { return ip(is4() ? "10.1.1.20" : "fd01::20"); }
  Ip neighbour_ip() const { return ip(is4() ? "10.1.1.30" : "fd01::30"); }

  static Fd bound(Node& node, const Ip& at, int wait_ms = 5000) {
    return node.netns.run([&] {
      Fd fd(::socket(at.is4() ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
      const timeval limit{.tv_sec = wait_ms / 1000, .tv_usec = wait_ms % 1000 * 1000};
      ::setsockopt(fd.number(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
      const auto [address, size] = socket_address(at);
      EXPECT_EQ(::bind(fd.number(), reinterpret_cast<const sockaddr*>(&address), size), 0);
      return fd;
    });
  }
  static std::pair<sockaddr_storage, socklen_t> socket_address(const Ip& at) {
    const auto endpoint =
        Endpoint::parse(at.is4() ? at.text() + ":4748" : fmt::format("[{}]:4748", at.text()));
    sockaddr_storage address{};
    const auto size = endpoint->to_sockaddr(address, endpoint->family());
    return {address, size};
  }
  static bool passes(const Fd& from, const Fd& to, const Ip& at) {
    const auto [address, size] = socket_address(at);
    EXPECT_EQ(
        ::sendto(from.number(), "word", 4, 0, reinterpret_cast<const sockaddr*>(&address), size),
        4);
    std::array<char, 8> buffer{};
    return ::recv(to.number(), buffer.data(), buffer.size(), 0) == 4;
  }
  std::optional<std::array<Node, 3>> nodes;
};

INSTANTIATE_TEST_SUITE_P(Families, GuestRouteTest, testing::Bool(),
                         [](const auto& tested) { return tested.param ? "IPv4" : "IPv6"; });

TEST_P(GuestRouteTest, TheGuestTalksWithItsSegmentAsIfItWereThere) {
  host().netns.run([&] { route_guest("guest", guest_ip()); });
  const Fd here = bound(guest(), guest_ip()), there = bound(neighbour(), neighbour_ip());
  EXPECT_TRUE(passes(there, here, guest_ip())) << "the host answers for the guest";
  EXPECT_TRUE(passes(here, there, neighbour_ip())) << "and for all others to the guest";
}

// As while its uplink is held.
TEST_P(GuestRouteTest, WhatComesBeforeTheGuestSaysWhereItIsWaits) {
  constexpr int kDatagrams = 1000;
  constexpr int kRoom = 8 << 20;
  const Ip late = ip(is4() ? "10.1.1.21" : "fd01::21");
  host().netns.run([&] { route_guest("guest", late); });
  const Fd here = bound(guest(), ip(is4() ? "0.0.0.0" : "::"));
  const Fd there = bound(host(), ip(is4() ? "10.1.1.10" : "fd01::10"));
  ::setsockopt(here.number(), SOL_SOCKET, SO_RCVBUFFORCE, &kRoom, sizeof kRoom);
  ::setsockopt(there.number(), SOL_SOCKET, SO_SNDBUFFORCE, &kRoom, sizeof kRoom);
  const auto [address, size] = socket_address(late);
  for (int i = 0; i < kDatagrams; ++i) {
    ASSERT_EQ(::sendto(there.number(), &i, sizeof i, 0, reinterpret_cast<const sockaddr*>(&address),
                       size),
              sizeof i);
  }
  guest().netlink.add_address("eth0", late.text() + (is4() ? "/24" : "/128"));
  for (int i = 0; i < kDatagrams; ++i) {
    int number = -1;
    ASSERT_EQ(::recv(here.number(), &number, sizeof number, 0), sizeof number) << i;
    ASSERT_EQ(number, i);
  }
}

// As when a guest begins to run, which is slow to say where it is.
TEST_P(GuestRouteTest, WhatWaitsGoesToWhereOthersSayThatTheGuestIs) {
  guest().netns.run([] {
    const auto done = apply_nftables(R"(
      table inet silent { chain c { type filter hook output priority 0
        icmpv6 type nd-neighbor-advert drop; }; }
      table arp silent { chain c { type filter hook output priority 0; drop; }; })");
    ASSERT_TRUE(done) << done.error().text;
  });
  host().netns.run([&] { route_guest("guest", guest_ip()); });
  const Fd here = bound(guest(), guest_ip(), 300);
  const Fd there = bound(host(), ip(is4() ? "10.1.1.10" : "fd01::10"));
  Netlink& netlink = host().netlink;
  EXPECT_FALSE(passes(there, here, guest_ip()));
  EXPECT_EQ(netlink.neighbour("guest", guest_ip().text()), std::nullopt);
  const MacAddress mac = guest().netlink.link("eth0").mac;
  netlink.suggest_neighbour("guest", guest_ip().text(), mac);
  std::array<char, 8> waited{};
  EXPECT_EQ(::recv(here.number(), waited.data(), waited.size(), 0), 4);
  EXPECT_EQ(netlink.neighbour("guest", guest_ip().text()), mac);
  EXPECT_TRUE(passes(there, here, guest_ip()));
}

TEST_P(GuestRouteTest, OnceItIsNotRoutedNobodyAnswersForIt) {
  host().netns.run([&] {
    route_guest("guest", guest_ip());
    route_guest("guest", guest_ip());
    unroute_guest(guest_ip());
    unroute_guest(guest_ip());
  });
  const Fd here = bound(guest(), guest_ip(), 300), there = bound(neighbour(), neighbour_ip());
  EXPECT_FALSE(passes(there, here, guest_ip()));
}

// As at the host that a guest leaves: it is answered for until those who knew it know better.
TEST_P(GuestRouteTest, WhatIsClaimedForItStays) {
  host().netns.run([&] {
    route_guest("guest", guest_ip());
    answer_for("rack", guest_ip());
  });
  const Fd here = bound(guest(), guest_ip()), there = bound(neighbour(), neighbour_ip());
  EXPECT_TRUE(passes(there, here, guest_ip())) << "the route to the guest is the better";
  host().netns.run([&] { unroute_guest(guest_ip()); });
  host().netns.run([&] { EXPECT_TRUE(read_claims().has("rack", guest_ip())); });
  host().netns.run([&] { route_guest("guest", guest_ip()); });
  EXPECT_TRUE(passes(there, here, guest_ip()));
  host().netns.run([&] { unclaim("rack", guest_ip()); });
  host().netns.run([&] { EXPECT_FALSE(read_claims().routes.contains(guest_ip())); });
}

TEST_P(GuestRouteTest, ASegmentIsFoundByItsNetwork) {
  host().netns.run([&] {
    EXPECT_EQ(segment_of(guest_ip()), "rack");
    EXPECT_EQ(segment_of(ip(is4() ? "10.1.2.20" : "fd02::20")), std::nullopt);
  });
  host().netlink.set_down("rack");
  host().netns.run([&] { EXPECT_EQ(segment_of(guest_ip()), std::nullopt); });
}

}  // namespace
}  // namespace godwit::os
