// A host that comes to forward, in a network namespace of the test's own; and one that had its
// default route from a router's advertisement.
#include "os/forwarding.hh"

#include <gtest/gtest.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fstream>
#include <optional>

#include "os/netlink.hh"
#include "os/test_wait.hh"

namespace godwit::os {
namespace {

struct ForwardingTest : testing::Test {
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "namespaces need root";
    host.emplace(NetNamespace::create());
    router.emplace(NetNamespace::create());
    // A new namespace may have what the first one has.
    for (const char* each : {"ipv4/ip_forward", "ipv6/conf/all/forwarding"}) set(each, 0);
    for (NetNamespace* each : {&*host, &*router}) {
      each->run([] { std::ofstream("/proc/sys/net/ipv6/conf/default/accept_dad") << 0; });
    }
    Netlink here = host->run([] { return Netlink(); });
    Netlink there = router->run([] { return Netlink(); });
    here.add_veth("up", "down");
    here.move_to("down", router->fd());
    set("ipv6/conf/up/accept_ra", 1);
    here.set_up("up");
    there.set_up("down");
  }
  void set(const std::string& setting, int value) {
    host->run([&] { std::ofstream("/proc/sys/net/" + setting) << value; });
  }
  // RFC 4861, 4.2: "I am a default router for half an hour".
  void advertise() {
    router->run([] {
      const Fd fd(::socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMPV6));
      const int hops = 255;
      ASSERT_EQ(::setsockopt(fd.number(), IPPROTO_IPV6, IPV6_MULTICAST_HOPS, &hops, sizeof hops),
                0);
      nd_router_advert advert{};
      advert.nd_ra_type = ND_ROUTER_ADVERT;
      advert.nd_ra_router_lifetime = htons(1800);
      sockaddr_in6 to{};
      to.sin6_family = AF_INET6;
      to.sin6_scope_id = ::if_nametoindex("down");
      to.sin6_addr.s6_addr[0] = 0xff;
      to.sin6_addr.s6_addr[1] = 2;
      to.sin6_addr.s6_addr[15] = 1;
      (void)::sendto(fd.number(), &advert, sizeof advert, 0, reinterpret_cast<const sockaddr*>(&to),
                     sizeof to);  // not before the link has its address
    });
  }
  bool has_default_route() {
    return host->run([] {
      std::ifstream routes("/proc/thread-self/net/ipv6_route");
      for (std::string line; std::getline(routes, line);) {
        if (line.starts_with(std::string(32, '0') + " 00") && line.ends_with(" up")) return true;
      }
      return false;
    });
  }
  std::optional<NetNamespace> host, router;
};

TEST_F(ForwardingTest, ComesWhenItIsNeeded) {
  host->run([] {
    for (const bool is4 : {true, false}) {
      EXPECT_FALSE(forwards(is4));
      have_host_forward(is4);
      EXPECT_TRUE(forwards(is4));
    }
  });
}

TEST_F(ForwardingTest, ADefaultRouteThatWouldBeLostIsNot) {
  Loop loop;
  ASSERT_TRUE(run_until(loop, [&] {
    advertise();
    return has_default_route();
  }));
  host->run([] {
    try {
      have_host_forward(false);
      FAIL() << "it lost its route";
    } catch (const SetupError& error) {
      EXPECT_NE(std::string(error.what()).find("net.ipv6.conf.up.accept_ra=2"), std::string::npos)
          << error.what();
    }
    EXPECT_FALSE(forwards(false));
    have_host_forward(true);
  });
  set("ipv6/conf/up/accept_ra", 2);  // the remedy
  host->run([] { have_host_forward(false); });
  EXPECT_TRUE(has_default_route());
}

}  // namespace
}  // namespace godwit::os
