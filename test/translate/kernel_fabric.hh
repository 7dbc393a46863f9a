#pragma once
// A fabric of which each device and host is a network namespace with the kernel's own routing:
// links between devices, a bridge for each edge's segment, all of the equal ways in use.
//
//   core1 ═ agg1 ═ edge1 ── rack (bridge, 10.1.1.1) ── ha1, hb1: rack0 (10.1.1.10, .11)
//
// A guest is an address at its host's segment interface, that echoes datagrams.
#include <map>
#include <memory>

#include "os/address_rewriting.hh"
#include "os/netlink.hh"
#include "translate/placement.hh"

namespace godwit::translate {

class KernelFabric final {
 public:
  explicit KernelFabric(Fabric fabric);

  const Fabric& fabric() const { return fabric_; }
  DeviceIndex at(std::string_view name) const { return *fabric_.find(name); }
  const os::NetNamespace& netns(DeviceIndex device) const { return nodes_[device]->netns; }

  // Somebody in the world, behind the device through which that is reached.
  const os::NetNamespace& world_netns() const { return world_.netns; }
  static Ip world(bool is4) { return is4 ? Ip::of4(0xcb007101) : Ip{0x20010db8'00000000, 1}; }

  // A host's own address.
  Ip own(DeviceIndex host, bool is4) const;

  // The guest's address comes to a host, or goes.
  void put(DeviceIndex host, const Ip& address);
  void take(DeviceIndex host, const Ip& address);
  // What the device shall have, of all guests: the kernel's table, and what it answers for.
  void write(DeviceIndex device, const Rules& rules);
  // Whether the device's kernel has no rule of ours.
  bool is_clean(DeviceIndex device) const;

 private:
  struct Node {
    os::NetNamespace netns = os::NetNamespace::create();
    os::Netlink netlink = netns.run([] { return os::Netlink(); });
    os::AddressRewriting rewriting{};
    std::map<Ip, RuleKind> claims{};
  };
  void join_segment(DeviceIndex edge);
  void join(DeviceIndex a, DeviceIndex b);
  void add_routes(DeviceIndex device);
  void add_route(DeviceIndex device, DeviceIndex to, const std::string& network, bool is4);
  void join_world(DeviceIndex device);

  Fabric fabric_;
  std::vector<std::unique_ptr<Node>> nodes_;
  Node world_{};
  // By (device, neighbour): the neighbour's addresses on the link.
  std::map<std::pair<DeviceIndex, DeviceIndex>, std::pair<std::string, std::string>> far_ends_;
  unsigned links_ = 0;
};

}  // namespace godwit::translate
