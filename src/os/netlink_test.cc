#include "os/netlink.hh"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "os/netns.hh"
#include "os/socket.hh"
#include "os/test_wait.hh"

namespace godwit::os {
namespace {

struct NetlinkTest : testing::Test {
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "namespaces need root";
    netns.emplace(NetNamespace::create());
    netns->run([&] { netlink.emplace(); });
  }
  std::optional<NetNamespace> netns;
  std::optional<Netlink> netlink;
};

TEST_F(NetlinkTest, LinksAreMadeChangedAndRemoved) {
  netlink->add_bridge("br0");
  netlink->add_veth("left", "right");
  netlink->set_master("left", "br0");
  netlink->set_mtu("left", 1400);
  const MacAddress mac = *MacAddress::parse("52:54:00:12:34:56");
  netlink->set_mac("left", mac);
  netlink->set_up("left");
  netlink->set_up("right");
  const auto left = netlink->link("left");
  EXPECT_EQ(left.mtu, 1400U);
  EXPECT_EQ(left.mac, mac);
  EXPECT_TRUE(left.up);
  EXPECT_TRUE(left.carrier);
  EXPECT_EQ(left.kind, "veth");
  EXPECT_EQ(left.master, netlink->link("br0").index);
  netlink->clear_master("left");
  EXPECT_EQ(netlink->link("left").master, 0);
  netlink->set_down("left");
  EXPECT_FALSE(netlink->link("left").up);
  netlink->rename("left", "renamed");
  EXPECT_FALSE(netlink->find("left"));
  netlink->remove_link("renamed");
  netlink->remove_link("renamed");
  EXPECT_FALSE(netlink->find("right")) << "a veth goes with its peer";
  EXPECT_EQ(netlink->names(), (std::vector<std::string>{"lo", "br0"}));
}

TEST_F(NetlinkTest, MistakesAreNamed) {
  netlink->add_bridge("br0");
  EXPECT_THROW(netlink->add_bridge("br0"), SetupError);
  EXPECT_THROW(netlink->set_up("nothing"), SetupError);
  EXPECT_THROW(netlink->add_bridge("a-name-of-16-let"), SetupError);
  EXPECT_THROW(netlink->set_master("br0", "nothing"), SetupError);
  EXPECT_THROW(netlink->add_address("br0", "10.0.0.1.2/24"), SetupError);
  EXPECT_THROW(netlink->add_route("10.0.0.0/8", "192.0.2.1"), SetupError) << "no way to there";
}

TEST_F(NetlinkTest, TwoNamespacesTalkOverAVethPair) {
  const auto far = NetNamespace::create();
  auto far_link = far.run([] { return Netlink(); });
  netlink->add_veth("near", "far");
  netlink->move_to("far", far.fd());
  EXPECT_FALSE(netlink->find("far"));
  netlink->add_address("near", "10.7.0.1/24");
  netlink->add_address("near", "10.7.0.1/24");  // again is fine
  netlink->add_address("near", "fd07::1/64");
  netlink->set_up("near");
  far_link.add_address("far", "10.7.0.2/24");
  far_link.set_up("lo");
  far_link.set_up("far");
  far_link.add_bridge("inner");
  far_link.set_up("inner");
  far_link.add_address("inner", "10.8.0.1/24");
  netlink->add_route("default", "10.7.0.2");
  netlink->add_route("fd08::/64", "", "near");

  Loop loop;
  bool connected = false;
  const auto listener = far.run([&] {
    return Listener::tcp(loop, *Endpoint::parse("10.8.0.1:4747"),
                         [&](auto, const Accepted&) { connected = true; });
  });
  auto dial = [&] { return tcp_connect(loop, *Endpoint::parse("10.8.0.1:4747")); };
  const auto client = netns->run(dial);
  EXPECT_TRUE(run_until(loop, [&] { return connected; })) << "through the default route";
  netlink->remove_route("default");
  netlink->remove_route("default");
  std::string reason;
  const auto lost = netns->run(dial);
  lost->start({.readable = {}, .writable = {}, .closed = [&](std::string why) { reason = why; }});
  EXPECT_TRUE(run_until(loop, [&] { return reason.find("unreachable") != std::string::npos; }));
  netlink->remove_address("near", "10.7.0.1/24");
  netlink->remove_address("near", "10.7.0.1/24");
}

// What this machine's packets to 64 addresses, NETWORK1 to NETWORK64, would have as their own; ""
// if there is no way. Nothing is sent: connecting a UDP socket only looks the route up.
std::set<std::string> sources_to(std::string_view network) {
  std::set<std::string> found;
  for (int i = 1; i <= 64; ++i) {
    const auto to = *Endpoint::parse(fmt::format("{}{}", network, i), 9);
    const Fd socket(::socket(to.family(), SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_storage address{};
    auto length = to.to_sockaddr(address, to.family());
    auto* const raw = reinterpret_cast<sockaddr*>(&address);
    const bool has_way = ::connect(socket.number(), raw, length) == 0;
    length = sizeof address;
    EXPECT_EQ(::getsockname(socket.number(), raw, &length), 0);
    found.insert(has_way ? Endpoint::from_sockaddr(address)->address_text() : "");
  }
  return found;
}

TEST_F(NetlinkTest, ARouteHasSeveralWays) {
  for (const int way : {1, 2}) {
    const auto near = fmt::format("near{}", way);
    netlink->add_veth(near, fmt::format("far{}", way));
    netlink->add_address(near, fmt::format("10.7.{}.1/24", way));
    netlink->add_address(near, fmt::format("fd07:{}::1/64", way));
    netlink->set_up(near);
    netlink->set_up(fmt::format("far{}", way));
  }
  const std::vector<NextHop> ways4 = {{"10.7.1.2", "near1"}, {"10.7.2.2", "near2"}};
  const std::vector<NextHop> ways6 = {{"fd07:1::2", "near1"}, {"fd07:2::2", "near2"}};
  netlink->add_route_by(ways4, "10.8.0.0/24");
  netlink->add_route_by(ways4, "10.8.0.0/24");  // again is fine
  netlink->add_route_by(ways4, "10.9.0.0/24", "10.7.2.1");
  netlink->add_route_by(ways6, "fd08::/64");
  netlink->add_route_by(ways6, "fd08::/64");
  netlink->add_route_by(ways6, "fd09::/64", "fd07:2::1");
  netns->run([&] {
    using Addresses = std::set<std::string>;
    EXPECT_EQ(sources_to("10.8.0."), (Addresses{"10.7.1.1", "10.7.2.1"}));
    EXPECT_EQ(sources_to("10.9.0."), Addresses{"10.7.2.1"});
    EXPECT_EQ(sources_to("fd08::"), (Addresses{"fd07:1::1", "fd07:2::1"}));
    EXPECT_EQ(sources_to("fd09::"), Addresses{"fd07:2::1"});
    netlink->remove_route("10.8.0.0/24");
    netlink->remove_route("fd08::/64");
    EXPECT_EQ(sources_to("10.8.0."), Addresses{""}) << "all its ways are gone";
    EXPECT_EQ(sources_to("fd08::"), Addresses{""});
  });
  EXPECT_THROW(netlink->add_route_by({{"10.7.1.2", ""}, {"192.0.2.1", ""}}, "10.8.0.0/24"),
               SetupError);
  EXPECT_THROW(netlink->add_route_by(ways4, "10.8.0.0/24", "192.0.2.1"), SetupError);
}

TEST_F(NetlinkTest, ANamespaceIsBoundToAPathAndOpenedByIt) {
  const std::string path = fmt::format("/tmp/godwit-netns-{}", ::getpid());
  netlink->add_bridge("marker");
  netns->bind(path);
  {
    const auto again = NetNamespace::open(path);
    EXPECT_TRUE(again.run([] { return Netlink().find("marker"); }));
  }
  NetNamespace::unbind(path);
  NetNamespace::unbind(path);
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_FALSE(Netlink().find("marker")) << "we are still where we were";
}

TEST_F(NetlinkTest, SilenceIsKeptInItsOwnNamespace) {
  const auto other = NetNamespace::create();
  const auto setting = [](const NetNamespace& inside) {
    return inside.run([] {
      std::ifstream file("/proc/sys/net/ipv6/conf/lo/disable_ipv6");
      return file.get();
    });
  };
  if (setting(other) != '0') GTEST_SKIP() << "there is no IPv6";
  other.run([&] { netlink->silence_ipv6("lo"); });
  EXPECT_EQ(setting(*netns), '1');
  EXPECT_EQ(setting(other), '0');
}

TEST_F(NetlinkTest, VxlanTakesItsUnderlay) {
  netlink->add_bridge("under");
  netlink->add_address("under", "10.9.0.1/24");
  netlink->set_up("under");
  netlink->add_vxlan("vx0", {.id = 42,
                             .local = *Endpoint::parse("10.9.0.1:0"),
                             .remote = *Endpoint::parse("10.9.0.2:4789"),
                             .underlay = "under"});
  EXPECT_EQ(netlink->link("vx0").kind, "vxlan");
}

TEST(MacAddress, IsParsedAndPrinted) {
  EXPECT_EQ(MacAddress::parse("52:54:00:ab:CD:ef")->text(), "52:54:00:ab:cd:ef");
  for (const char* text :
       {"", "52:54:00:ab:cd", "52-54-00-ab-cd-ef", "52:54:00:ab:cd:eg", "52:54:00:ab:cd:ef:"}) {
    EXPECT_FALSE(MacAddress::parse(text)) << text;
  }
  EXPECT_EQ(MacAddress::random().octets[0] & 3, 2);
}

}  // namespace
}  // namespace godwit::os
