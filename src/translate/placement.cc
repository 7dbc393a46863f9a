#include "translate/placement.hh"

#include <algorithm>
#include <set>

#include "base/check.hh"

namespace godwit::translate {
namespace {

// Follows all shortest ways to an address's home as far as they are shortest ways to the host too.
class Walk final {
 public:
  Walk(const Fabric& fabric, const std::vector<DeviceIndex>& homes, DeviceIndex host)
      : fabric_(fabric), home_(distances(fabric, homes)), host_(distances(fabric, {host})) {}

  void from(DeviceIndex here) {
    if (home_[here] == kUnreachable || !seen_.insert(here).second) return;
    const auto next = next_hops(fabric_, home_, here);
    const bool all_near =
        std::ranges::all_of(next, [&](DeviceIndex each) { return host_[each] < host_[here]; });
    if (next.empty() || !all_near) {
      departures_.insert(here);
    } else {
      for (const DeviceIndex each : next) from(each);
    }
  }

  std::vector<DeviceIndex> departures() const { return {departures_.begin(), departures_.end()}; }

 private:
  const Fabric& fabric_;
  std::vector<unsigned> home_, host_;
  std::set<DeviceIndex> seen_, departures_;
};

}  // namespace

std::vector<DeviceIndex> departures(const Fabric& fabric, Ip address, DeviceIndex host,
                                    Detours detours) {
  auto homes = fabric.homes_of(address);
  if (detours == Detours::allowed) return homes;
  Walk walk(fabric, homes, host);
  for (DeviceIndex i = 0; i < fabric.devices.size(); ++i) {
    const Device& device = fabric.devices[i];
    if (!device.networks.empty() || device.is_outside) walk.from(i);
  }
  return walk.departures();
}

Tables rules_of(const Fabric& fabric, Ip address, const Stay& stay, Detours detours) {
  Tables tables;
  if (!stay.locator) return tables;
  CHECK(stay.locator->is4() == address.is4());
  for (const DeviceIndex device : departures(fabric, address, stay.host, detours)) {
    tables[device].push_back(
        {.kind = RuleKind::depart, .match = address, .becomes = *stay.locator});
  }
  // One of them: two would answer for one address.
  tables[fabric.homes_of(address).front()].push_back({.kind = RuleKind::claim, .match = address});
  Rules& at_host = tables[stay.host];
  at_host.push_back({.kind = RuleKind::arrive, .match = *stay.locator, .becomes = address});
  at_host.push_back({.kind = RuleKind::claim, .match = *stay.locator});
  return tables;
}

}  // namespace godwit::translate
