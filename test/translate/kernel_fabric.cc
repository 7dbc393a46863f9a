#include "kernel_fabric.hh"

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "base/check.hh"
#include "os/address_claim.hh"
#include "os/announce.hh"

namespace godwit::translate {
namespace {

void set_up_kernel() {
  std::ofstream("/proc/sys/net/ipv4/ip_forward") << 1;
  std::ofstream("/proc/sys/net/ipv6/conf/all/forwarding") << 1;
  std::ofstream("/proc/sys/net/ipv6/conf/default/accept_dad") << 0;
  for (const char* which : {"all", "default"}) {
    for (const char* setting : {"send_redirects", "rp_filter"}) {
      std::ofstream(fmt::format("/proc/sys/net/ipv4/conf/{}/{}", which, setting)) << 0;
    }
  }
}

// A guest's address is not its host's own, as it is here: what comes from it is no martian.
void take_what_is_from_guests() { std::ofstream("/proc/sys/net/ipv4/conf/all/accept_local") << 1; }

// Several next hops are more than our own netlink knows.
void run(const std::string& command) {
  CHECK(std::system(command.c_str()) == 0, "'{}' failed", command);
}

Ip plus(Ip ip, unsigned n) {
  ip.low += n;
  return ip;
}

std::string alone(const Ip& ip) { return fmt::format("{}/{}", ip.text(), ip.is4() ? 32 : 128); }

}  // namespace

KernelFabric::KernelFabric(Fabric fabric) : fabric_(std::move(fabric)) {
  for (std::size_t i = 0; i < fabric_.devices.size(); ++i) {
    nodes_.push_back(std::make_unique<Node>());
    netns(i).run(set_up_kernel);
    if (fabric_.devices[i].is_host()) netns(i).run(take_what_is_from_guests);
    nodes_[i]->netlink.set_up("lo");
  }
  for (DeviceIndex i = 0; i < fabric_.devices.size(); ++i) {
    if (!fabric_.devices[i].networks.empty()) join_segment(i);
    for (const DeviceIndex each : fabric_.devices[i].neighbours) {
      if (each > i && !fabric_.devices[each].is_host()) join(i, each);
    }
  }
  for (DeviceIndex i = 0; i < fabric_.devices.size(); ++i) add_routes(i);
}

void KernelFabric::join_segment(DeviceIndex edge) {
  os::Netlink& here = nodes_[edge]->netlink;
  here.add_bridge("rack");
  for (const IpPrefix& each : fabric_.devices[edge].networks) {
    here.add_address("rack", IpPrefix{plus(each.address, 1), each.length}.text());
  }
  here.set_up("rack");
  unsigned n = 0;
  for (const DeviceIndex host : fabric_.devices[edge].neighbours) {
    if (!fabric_.devices[host].is_host()) continue;
    const std::string port = fmt::format("port{}", n);
    here.add_veth(port, "rack0");
    here.move_to("rack0", netns(host).fd());
    here.set_master(port, "rack");
    here.set_up(port);
    os::Netlink& there = nodes_[host]->netlink;
    for (const IpPrefix& each : fabric_.devices[edge].networks) {
      there.add_address("rack0", IpPrefix{plus(each.address, 10 + n), each.length}.text());
    }
    there.set_up("rack0");
    for (const IpPrefix& each : fabric_.devices[edge].networks) {
      const bool is4 = each.address.is4();
      there.add_route(is4 ? "default" : "::/0", plus(each.address, 1).text());
    }
    ++n;
  }
}

void KernelFabric::join(DeviceIndex a, DeviceIndex b) {
  const unsigned link = links_++;
  const std::string name = fmt::format("link{}", link);
  nodes_[a]->netlink.add_veth(name, "far");
  nodes_[a]->netlink.move_to("far", netns(b).fd());
  nodes_[b]->netlink.rename("far", name);
  unsigned n = 1;
  for (const auto& [here, there] : {std::pair(a, b), std::pair(b, a)}) {
    const std::string ip4 = fmt::format("10.255.{}.{}", link, n);
    const std::string ip6 = fmt::format("fd02:{:x}::{}", link, n);
    nodes_[here]->netlink.add_address(name, ip4 + "/30");
    nodes_[here]->netlink.add_address(name, ip6 + "/64");
    nodes_[here]->netlink.set_up(name);
    far_ends_[{there, here}] = {ip4, ip6};
    ++n;
  }
}

// To each edge's networks, and to the world, by all of the shortest ways.
void KernelFabric::add_routes(DeviceIndex device) {
  if (fabric_.devices[device].is_host()) return;
  for (DeviceIndex to = 0; to < fabric_.devices.size(); ++to) {
    if (to == device) {
      if (fabric_.devices[to].is_outside) join_world(to);
      continue;
    }
    for (const IpPrefix& network : fabric_.devices[to].networks) {
      add_route(device, to, network.text(), network.address.is4());
    }
    if (fabric_.devices[to].is_outside) {
      for (const bool is4 : {true, false}) add_route(device, to, "default", is4);
    }
  }
}

void KernelFabric::join_world(DeviceIndex device) {
  os::Netlink& here = nodes_[device]->netlink;
  here.add_veth("world", "far");
  here.move_to("far", world_.netns.fd());
  here.set_up("world");
  world_.netns.run(set_up_kernel);
  world_.netlink.set_up("far");
  for (const bool is4 : {true, false}) {
    const Ip ip = world(is4), router = plus(ip, 1);
    const std::uint8_t length = is4 ? 24 : 64;
    here.add_address("world", IpPrefix{router, length}.text());
    world_.netlink.add_address("far", IpPrefix{ip, length}.text());
    world_.netlink.add_route(is4 ? "default" : "::/0", router.text());
  }
}

void KernelFabric::add_route(DeviceIndex device, DeviceIndex to, const std::string& network,
                             bool is4) {
  std::string command = fmt::format("ip -{} route add {}", is4 ? 4 : 6, network);
  for (const DeviceIndex each : next_hops(fabric_, distances(fabric_, {to}), device)) {
    const auto& [ip4, ip6] = far_ends_.at({device, each});
    command += fmt::format(" nexthop via {}", is4 ? ip4 : ip6);
  }
  netns(device).run([&] { run(command); });
}

Ip KernelFabric::own(DeviceIndex host, bool is4) const {
  const Device& edge = fabric_.devices[fabric_.devices[host].neighbours.front()];
  unsigned n = 0;
  for (const DeviceIndex each : edge.neighbours) {
    if (each == host) break;
    if (fabric_.devices[each].is_host()) ++n;
  }
  const auto network = std::ranges::find_if(
      edge.networks, [&](const IpPrefix& each) { return each.address.is4() == is4; });
  return plus(network->address, 10 + n);
}

// Its home's edge may remember another host for it.
void KernelFabric::put(DeviceIndex host, const Ip& address) {
  nodes_[host]->netlink.add_address("rack0", alone(address));
  // An IPv6 address gets its route a little later.
  netns(host).run([&] {
    run(fmt::format("until ip route get {} | grep -q ^local; do :; done", address.text()));
  });
  const auto told = netns(host).run([&] { return os::announce("rack0", address); });
  CHECK(told.has_value(), "{}", told.error().text);
}
void KernelFabric::take(DeviceIndex host, const Ip& address) {
  nodes_[host]->netlink.remove_address("rack0", alone(address));
}

void KernelFabric::write(DeviceIndex device, const Rules& rules) {
  Node& node = *nodes_[device];
  os::Rewrites all;
  std::map<Ip, RuleKind> claims;
  for (const Rule& rule : rules) {
    if (!rewrites(rule.kind)) {
      if (rule.is_active) claims[rule.match] = rule.kind;
    } else {
      auto& map = !rule.is_active                 ? all.staged
                  : rule.kind == RuleKind::depart ? all.depart
                                                  : all.arrive;
      map[rule.match] = rule.becomes;
    }
  }
  const std::string segment = fabric_.devices[device].is_host() ? "rack0" : "rack";
  // What is claimed departs all the while: else it would go round.
  netns(device).run([&] {
    for (const auto& [each, kind] : node.claims) {
      if (!claims.contains(each)) os::unclaim(segment, each);
    }
    const auto done = node.rewriting.set(all);
    CHECK(done.has_value(), "{}", done.error().text);
    for (const auto& [each, kind] : claims) {
      if (node.claims.contains(each)) continue;
      (kind == RuleKind::claim ? os::claim : os::answer_for)(segment, each);
    }
  });
  node.claims = std::move(claims);
}

bool KernelFabric::is_clean(DeviceIndex device) const {
  const auto found = netns(device).run(os::AddressRewriting::read);
  return found && *found == os::Rewrites{} && nodes_[device]->claims.empty();
}

}  // namespace godwit::translate
