#pragma once
// IPv6 neighbour discovery (RFC 4861): who has this address, and what a router tells its hosts.
#include <optional>
#include <vector>

#include "net/packet.hh"

namespace godwit::net {

inline constexpr std::uint8_t kDiscoveryHops = 255;  // so that it cannot come from elsewhere

struct Discovery {
  enum Type : std::uint8_t { router_solicitation = 133, solicitation = 135, advertisement = 136 };
  Type type = solicitation;
  Ip target{};               // not of a router solicitation
  std::optional<Mac> mac{};  // source or target link-layer address
};
// Of ICMPv6, with its checksum verified. Empty: it is none of these, or not to be trusted.
std::optional<Discovery> read_discovery(BytesView frame, const IpPacket& packet);

// RFC 4291, 2.5.6 and appendix A; 2.7.1; RFC 2464, 7.
Ip link_local_of(Mac mac);
Ip solicited_group_of(Ip ip);
Mac mac_of_group(Ip group);

// "Who has `target`?", from `ends.source`; `ends`' addresses and MACs as they are to be.
void write_solicitation(const IpEnds& ends, Ip target, Bytes& out);
// "`mac` has it"; `is_answer`: to a question of somebody's who has an address.
void write_advertisement(const IpEnds& ends, Ip target, Mac mac, bool is_answer, Bytes& out);

struct RouterAdvertisement {
  Mac mac = 0;
  std::uint16_t mtu = 1500;
  std::uint16_t lifetime_s = 1800;   // 0: no longer a router
  std::vector<IpPrefix> prefixes{};  // of 64 bits: hosts make addresses of them (RFC 4862)
  std::vector<Ip> dns{};             // RFC 8106
};
void write_router_advertisement(const IpEnds& ends, const RouterAdvertisement& told, Bytes& out);

}  // namespace godwit::net
