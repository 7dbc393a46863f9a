#include "lab/wiring.hh"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/result.hh"
#include "lab/address_plan.hh"
#include "lab/state.hh"
#include "os/netlink.hh"
#include "os/netns.hh"
#include "os/nftables.hh"

namespace godwit::lab {
namespace {

// Frames the kernel keeps for the emulator while it does something else: 10,000 full ones are 300
// ms at 400 Mbit/s. The default of 500 overflows where two processors are busy, and such a loss
// would be on nobody's books.
constexpr unsigned kTapQueueFrames = 10'000;
constexpr const char* kLan = "lan";

unsigned mtu_of(const LabConfig& lab) {
  unsigned mtu = kDefaultMtu;
  for (const Link& link : lab.links) {
    for (const LinkQuality& quality : link.quality) mtu = std::max<unsigned>(mtu, quality.mtu);
  }
  return mtu;
}

std::string tap_name(std::size_t link) { return fmt::format("wan{}", link); }

void add_addresses(os::Netlink& netlink, const std::string& interface, const Address& address) {
  if (!address.ipv4.empty())
    netlink.add_address(interface, fmt::format("{}/{}", address.ipv4, address.prefix4));
  if (!address.ipv6.empty())
    netlink.add_address(interface, fmt::format("{}/{}", address.ipv6, address.prefix6));
}

void add_host_addresses(os::Netlink& netlink, const LabConfig& lab, const Host& host,
                        const Address& address) {
  add_addresses(netlink, "eth0", address);
  const Address gateway = router_address(lab, host.site);
  if (!address.ipv4.empty()) netlink.add_route("0.0.0.0/0", gateway.ipv4, "eth0");
  if (!address.ipv6.empty()) netlink.add_route("::/0", gateway.ipv6, "eth0");
}

os::Fd open_tap(const std::string& name) {
  os::Fd tap(::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (!tap) fail_setup("{}; load the tun module", errno_text("open /dev/net/tun"));
  ifreq request{};
  name.copy(request.ifr_name, IFNAMSIZ - 1);
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  if (::ioctl(tap.number(), TUNSETIFF, &request) != 0 ||
      ::ioctl(tap.number(), TUNSETOFFLOAD, 0) != 0) {
    fail_setup("{}", errno_text(fmt::format("make the TAP {}", name)));
  }
  return tap;
}

}  // namespace

void wire_router(const LabConfig& lab, const std::string& site, pid_t router) {
  os::NetNamespace::of_process(router).run([&] {
    os::Netlink netlink;
    netlink.add_bridge(kLan);
    netlink.set_mtu(kLan, mtu_of(lab));
    add_addresses(netlink, kLan, router_address(lab, site));
    netlink.set_up(kLan);
  });
}

void wire_host(const LabConfig& lab, const Host& host, pid_t init, pid_t router) {
  const auto inside = os::NetNamespace::of_process(init);
  const auto index = std::find(lab.hosts.begin(), lab.hosts.end(), host) - lab.hosts.begin();
  const auto port = fmt::format("h{}", index);
  os::NetNamespace::of_process(router).run([&] {
    os::Netlink netlink;
    netlink.remove_link(port);  // of the host before its power was cut; the kernel may be slower
    netlink.add_veth(port, "eth0");
    netlink.move_to("eth0", inside.fd());
    netlink.set_mtu(port, mtu_of(lab));
    netlink.set_master(port, kLan);
    netlink.set_up(port);
  });
  inside.run([&] {
    os::Netlink netlink;
    netlink.set_mtu("eth0", mtu_of(lab));
    netlink.set_up("eth0");
    add_host_addresses(netlink, lab, host, host_address(lab, host.name));
  });
}

void readdress_host(const LabConfig& lab, const Host& host, pid_t init, const Address& from,
                    const Address& to) {
  os::NetNamespace::of_process(init).run([&] {
    os::Netlink netlink;
    for (const auto& [ip, prefix] :
         {std::pair{from.ipv4, from.prefix4}, std::pair{from.ipv6, from.prefix6}}) {
      if (!ip.empty()) netlink.remove_address("eth0", fmt::format("{}/{}", ip, prefix));
    }
    add_host_addresses(netlink, lab, host, to);
  });
}

std::array<os::Fd, 2> wire_link(const LabConfig& lab, std::size_t index,
                                const std::array<pid_t, 2>& routers) {
  std::array<os::Fd, 2> taps;
  for (std::size_t end = 0; end < 2; ++end) {
    os::NetNamespace::of_process(routers[end]).run([&] {
      const auto name = tap_name(index);
      taps[end] = open_tap(name);
      os::Netlink netlink;
      netlink.set_mtu(name, mtu_of(lab));
      netlink.set_queue_length(name, kTapQueueFrames);
      add_addresses(netlink, name, link_address(lab, index, end));
      netlink.set_up(name);
    });
  }
  return taps;
}

namespace {

// An agent speaks from the address that it announces: nobody has routes to those of links.
void add_site_route(os::Netlink& netlink, const SiteRoute& route, const Address& source) {
  std::vector<os::NextHop> ways4;
  std::vector<os::NextHop> ways6;
  for (const SiteRoute::Way& way : route.ways) {
    ways4.push_back({.via = way.via.ipv4, .interface = tap_name(way.link)});
    ways6.push_back({.via = way.via.ipv6, .interface = tap_name(way.link)});
  }
  netlink.add_route_by(ways4, route.network4, source.ipv4);
  netlink.add_route_by(ways6, route.network6, source.ipv6);
}

// As in a data centre's devices: ports choose the way, too, and each router chooses by a hash of
// its own. Were it the same in all, those that get half of the flows would send these one way on.
void spread_flows(const LabConfig& lab, const std::string& site) {
  write_file("/proc/sys/net/ipv4/fib_multipath_hash_policy", "1");
  write_file("/proc/sys/net/ipv6/fib_multipath_hash_policy", "1");
  const std::string seed_file = "/proc/sys/net/ipv4/fib_multipath_hash_seed";
  if (::access(seed_file.c_str(), F_OK) != 0) return;  // before Linux 6.11
  const auto index = static_cast<std::uint32_t>(
      std::find(lab.sites.begin(), lab.sites.end(), site) - lab.sites.begin());
  const auto seed = static_cast<std::uint32_t>(lab.seed * kMaxSites) + index;
  write_file(seed_file, std::to_string(std::max(1U, seed)));  // 0 is none
}

}  // namespace

void route_router(const LabConfig& lab, const std::string& site, pid_t router) {
  os::NetNamespace::of_process(router).run([&] {
    os::Netlink netlink;
    const SiteNetwork& network = lab.networks.at(site);
    const Address source = network.router_has_agent ? router_address(lab, site) : Address{};
    const auto routes = routes_of(lab, site);
    for (const SiteRoute& route : routes) add_site_route(netlink, route, source);
    if (std::ranges::any_of(routes, [](const SiteRoute& each) { return each.ways.size() > 1; }))
      spread_flows(lab, site);
    if (network.nat == Nat::none) return;
    if (const auto done = os::apply_nftables(nat_ruleset(lab, site)); !done) {
      fail_setup("make the NAT of site {}: {}", site, done.error().text);
    }
    // Of the namespace; there once the rules have asked for connection tracking.
    const auto timeout = std::to_string(duration_cast<seconds>(network.nat_timeout).count());
    write_file("/proc/sys/net/netfilter/nf_conntrack_udp_timeout", timeout);
    write_file("/proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream", timeout);
  });
}

}  // namespace godwit::lab
