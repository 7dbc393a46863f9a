#pragma once
// Fabrics by chance, and packets that follow their routes and rules: what devices would do, said
// again without the code under test.
#include <random>

#include "translate/rollout.hh"

namespace godwit::translate {

// 2 to 4 tiers, 8 to 40 devices, each joined to some of the tier above (all of the top are joined
// by the tier below), 1 to 3 hosts at each edge, IPv4 and IPv6; some edges in pairs that share
// hosts and networks.
enum class Pairs { some, none };
Fabric random_fabric(std::mt19937& random, Pairs pairs = Pairs::some);
// core1, core2; agg1, agg2 in pod 1, agg3, agg4 in pod 2; edge1, edge2 (pod 1), edge3, edge4; hosts
// ha1, hb1 ... ha4, hb4. Rack n has 10.1.n.0/24, its locators are 10.1.n.192/26; fd01:n::/64.
Fabric small_fabric();

struct Trip {
  bool arrived = true;  // by whichever of the equal ways
  unsigned hops = 0;    // of the longest, from here
  std::string why{};    // where it was lost
};

class Packets final {
 public:
  // `guest`: the host where it is, whose address this is.
  Packets(const Fabric& fabric, const Tables& tables, Ip address, DeviceIndex guest)
      : fabric_(fabric), tables_(tables), address_(address), guest_(guest) {}

  // To the guest's address, from a neighbour of the device's segment, or from outside.
  Trip from(DeviceIndex device) { return pass(device, address_); }
  // One that is at a host already, as it was sent before the guest left that.
  Trip late_at(DeviceIndex host) { return pass(host, address_); }

 private:
  Trip pass(DeviceIndex here, Ip to);
  Trip pass_newly(DeviceIndex here, Ip to);
  Trip at_host(DeviceIndex host, Ip to);
  Trip onto_segment(DeviceIndex edge, Ip to);
  Trip by_all(const std::vector<DeviceIndex>& next, Ip to);
  Ip rewritten(DeviceIndex here, RuleKind kind, Ip to) const;
  bool claims(DeviceIndex here, Ip to) const;

  const Fabric& fabric_;
  const Tables& tables_;
  Ip address_;
  DeviceIndex guest_;
  std::map<Ip, std::vector<unsigned>> left_{};  // hops, by destination
  // What is known; while it is being found out: that it goes round.
  std::map<std::pair<DeviceIndex, Ip>, Trip> known_{};
};

// Devices where correspondents are.
std::vector<DeviceIndex> entries(const Fabric& fabric);
// An address of an edge's network that is no locator; the nth.
Ip address_at(const Fabric& fabric, DeviceIndex edge, bool is4, unsigned n);
Ip locator_at(const Fabric& fabric, DeviceIndex host, bool is4, unsigned n);

}  // namespace godwit::translate
