#pragma once
// A routed data centre: devices in tiers, what each is joined to, and which networks are where.
//
//   tier 3   core          core1   core2      ── outside
//   tier 2   aggregation   agg1 … agg4
//   tier 1   edge          edge1 … edge4      networks: a rack's, in which guests have addresses
//   tier 0   host          h1 … h8            agents' hosts, where guests are
//
// Packets take any of the shortest paths (ECMP), hosts are on the way of none. Values, no I/O.
#include <cstddef>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.hh"
#include "base/problem.hh"

namespace godwit::translate {

using DeviceIndex = std::size_t;

struct Device {
  std::string name{};   // of a host: the agent's
  std::string agent{};  // who drives it
  std::size_t tier = 0;
  std::vector<DeviceIndex> neighbours{};
  std::vector<IpPrefix> networks{};  // of the segment below it
  std::vector<IpPrefix> locators{};  // parts of them that guests from elsewhere get
  bool is_outside = false;           // the rest of the world is reached through it
  bool is_host() const { return tier == 0; }
};

struct Fabric {
  std::string name{};
  std::vector<std::string> tiers{};  // "host" first
  std::vector<Device> devices{};

  std::optional<DeviceIndex> find(std::string_view device) const;
  // The devices to which packets for the address are routed: those whose network has it. Empty: it
  // is not of this fabric.
  std::vector<DeviceIndex> homes_of(Ip address) const;
  // Whether guests with this address need no rules at this host: its segment is theirs.
  bool is_home(DeviceIndex host, Ip address) const;
  // The locators that a guest at this host may have, of the address's family.
  std::vector<IpPrefix> locators_of(DeviceIndex host, Ip address) const;
  // Whether any guest may have it as one.
  bool is_locator(Ip address) const;
};

// Hops from each device to the nearest of `to`; kUnreachable where there is no way, and from hosts
// that are none of these, as packets do not pass through them.
inline constexpr unsigned kUnreachable = ~0U;
std::vector<unsigned> distances(const Fabric& fabric, const std::vector<DeviceIndex>& to);
// Where packets may go on from `here`, which is not there yet.
std::vector<DeviceIndex> next_hops(const Fabric& fabric, const std::vector<unsigned>& distances,
                                   DeviceIndex here);

inline constexpr std::size_t kMostDevices = 65536;
inline constexpr std::size_t kMostTiers = 8;

// A fabric.yaml that was read as JSON: { tiers: [edge, core], devices: { NAME: { tier, up: [...],
// hosts: [...], networks: [...], locators: [...], outside: true, agent } } }.
std::expected<Fabric, std::vector<Problem>> parse_fabric(const nlohmann::json& file);

}  // namespace godwit::translate
