#pragma once
// Where the rules of a displaced guest go, so that everybody in and outside the fabric reaches it.
//
// A correspondent's packets for P follow the routes to P's home. They depart from these at the last
// device that is also on a shortest way to where the guest is: no packet takes a detour, and a rule
// is at the lowest device that serves those who pass it. At the guest's home its edge departs for
// the neighbours in its segment, who look for P there; so it alone would do, with a detour for all
// others (Detours::allowed: the fewest rules).
//
// After Bifulco, Canonico, Ventre and Manetti (coordinated NAT rules over the layers of a data
// centre); what is placed where is ours.
#include <map>

#include "translate/fabric.hh"
#include "translate/rule.hh"

namespace godwit::translate {

enum class Detours { none, allowed };

// Where a guest is: at home (no locator), or elsewhere.
struct Stay {
  DeviceIndex host = 0;
  std::optional<Ip> locator{};
};

using Tables = std::map<DeviceIndex, Rules>;  // devices without rules are not there

// Devices at which packets for `address` depart to a guest at `host`, ascending.
std::vector<DeviceIndex> departures(const Fabric& fabric, Ip address, DeviceIndex host,
                                    Detours detours);
// All rules of a guest that stays there.
Tables rules_of(const Fabric& fabric, Ip address, const Stay& stay, Detours detours);

}  // namespace godwit::translate
