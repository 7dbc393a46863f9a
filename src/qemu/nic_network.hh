#pragma once
// What a guest is told of one of its NICs, by its guest agent (guest_network.hh). Part of the vm:
// it goes where that goes.
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <vector>

#include "base/ip.hh"

namespace godwit::qemu {

inline constexpr std::size_t kMaxNicAddresses = 8;
inline constexpr std::size_t kMaxNicResolvers = 3;  // glibc's MAXNS
inline constexpr unsigned kMinNicMtu = 1280;        // IPv6 asks for it (RFC 8200, 5)
inline constexpr unsigned kMaxNicMtu = 65535;

struct NicNetwork {
  std::vector<IpPrefix> addresses;
  std::optional<Ip> gateway4{}, gateway6{};  // on the link, whatever the addresses' networks are
  std::vector<Ip> resolvers{};               // once it is the way out; none: the guest's stay
  unsigned mtu = 1500;
  bool operator==(const NicNetwork&) const = default;
};
// {addresses, gateways, resolvers, mtu}
nlohmann::json to_json(const NicNetwork& network);
// As an operator or a peer says it; the error names the field.
Result<NicNetwork> nic_network_from_json(const nlohmann::json& object);

}  // namespace godwit::qemu
