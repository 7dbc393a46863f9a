#include "translate/locator.hh"

#include <algorithm>

namespace godwit::translate {
namespace {

// Of hosts that share an edge, in the order of the file.
struct Part {
  std::uint64_t index = 0, of = 1;
};
Part part_of(const Fabric& fabric, DeviceIndex host) {
  const Device& edge = fabric.devices[fabric.devices[host].neighbours.front()];
  std::vector<DeviceIndex> hosts;
  std::ranges::copy_if(edge.neighbours, std::back_inserter(hosts),
                       [&](DeviceIndex each) { return fabric.devices[each].is_host(); });
  const auto found = std::ranges::find(hosts, host);
  return {static_cast<std::uint64_t>(found - hosts.begin()), hosts.size()};
}

// No host may have them: of IPv4 the network itself and all in it (RFC 1122, 3.2.1.3), of IPv6 its
// routers (RFC 4291, 2.6.1).
bool is_reserved(const Fabric& fabric, Ip ip) {
  for (const Device& device : fabric.devices) {
    for (const IpPrefix& network : device.networks) {
      if (!network.contains(ip)) continue;
      const Ip first = network.network().address;
      if (ip == first) return true;
      if (!ip.is4()) continue;
      const std::uint64_t last = first.low | ((std::uint64_t{1} << (32 - network.length)) - 1);
      if (ip.low == last) return true;
    }
  }
  return false;
}

// So many of a larger range are enough for one host.
constexpr std::uint64_t kMostTried = 65536;

std::optional<Ip> free_in(const Fabric& fabric, const IpPrefix& range, const Part& part,
                          const std::set<Ip>& used) {
  const unsigned bits = (range.address.is4() ? 32U : 128U) - range.length;
  const std::uint64_t size = bits >= 48 ? std::uint64_t{1} << 48 : std::uint64_t{1} << bits;
  const std::uint64_t begin = size / part.of * part.index + std::min(size % part.of, part.index);
  const std::uint64_t own = size / part.of + (part.index < size % part.of ? 1 : 0);
  for (std::uint64_t i = 0; i < std::min(own, kMostTried); ++i) {
    Ip ip = range.network().address;
    ip.low += begin + i;
    if (!used.contains(ip) && !is_reserved(fabric, ip)) return ip;
  }
  return std::nullopt;
}

}  // namespace

Result<Ip> free_locator(const Fabric& fabric, DeviceIndex host, Ip address,
                        const std::set<Ip>& used) {
  const std::string& name = fabric.devices[host].name;
  const auto ranges = fabric.locators_of(host, address);
  if (ranges.empty()) {
    return fail(
        "{} cannot be at host {}: no device next to it has locators of its family; give "
        "one some in the fabric's file",
        address.text(), name);
  }
  const Part part = part_of(fabric, host);
  for (const IpPrefix& range : ranges) {
    if (const auto found = free_in(fabric, range, part, used)) return *found;
  }
  return fail("{} cannot be at host {}: all of its part of the locators is in use", address.text(),
              name);
}

}  // namespace godwit::translate
