#include "translate/fabric.hh"

#include <algorithm>
#include <deque>

namespace godwit::translate {

std::optional<DeviceIndex> Fabric::find(std::string_view device) const {
  const auto found = std::ranges::find(devices, device, &Device::name);
  if (found == devices.end()) return std::nullopt;
  return static_cast<DeviceIndex>(found - devices.begin());
}

std::vector<DeviceIndex> Fabric::homes_of(Ip address) const {
  std::vector<DeviceIndex> homes;
  for (DeviceIndex i = 0; i < devices.size(); ++i) {
    const bool has_it = std::ranges::any_of(
        devices[i].networks, [&](const IpPrefix& network) { return network.contains(address); });
    if (has_it) homes.push_back(i);
  }
  return homes;
}

bool Fabric::is_home(DeviceIndex host, Ip address) const {
  const auto& near = devices[host].neighbours;
  return devices[host].is_host() && std::ranges::any_of(homes_of(address), [&](DeviceIndex home) {
           return std::ranges::find(near, home) != near.end();
         });
}

std::vector<IpPrefix> Fabric::locators_of(DeviceIndex host, Ip address) const {
  std::vector<IpPrefix> all;
  for (const DeviceIndex edge : devices[host].neighbours) {
    for (const IpPrefix& each : devices[edge].locators) {
      const bool is_new = std::ranges::find(all, each) == all.end();
      if (is_new && each.address.is4() == address.is4()) all.push_back(each);
    }
  }
  return all;
}

bool Fabric::is_locator(Ip address) const {
  return std::ranges::any_of(devices, [&](const Device& device) {
    return std::ranges::any_of(device.locators,
                               [&](const IpPrefix& each) { return each.contains(address); });
  });
}

std::vector<unsigned> distances(const Fabric& fabric, const std::vector<DeviceIndex>& to) {
  std::vector<unsigned> hops(fabric.devices.size(), kUnreachable);
  std::deque<DeviceIndex> reached;
  for (const DeviceIndex each : to) {
    hops[each] = 0;
    reached.push_back(each);
  }
  while (!reached.empty()) {
    const DeviceIndex here = reached.front();
    reached.pop_front();
    for (const DeviceIndex next : fabric.devices[here].neighbours) {
      if (hops[next] != kUnreachable || fabric.devices[next].is_host()) continue;
      hops[next] = hops[here] + 1;
      reached.push_back(next);
    }
  }
  return hops;
}

std::vector<DeviceIndex> next_hops(const Fabric& fabric, const std::vector<unsigned>& distances,
                                   DeviceIndex here) {
  std::vector<DeviceIndex> next;
  for (const DeviceIndex each : fabric.devices[here].neighbours) {
    if (distances[each] < distances[here]) next.push_back(each);
  }
  return next;
}

}  // namespace godwit::translate
