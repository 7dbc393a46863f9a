#pragma once
// VLAN tags (IEEE 802.1Q-2022, 9.6) of frames with a virtio_net_hdr in front, whose offsets count
// the tag, too.
//
//   vnet header | destination | source | 0x8100 | priority, VLAN | EtherType ...
#include <cstdint>
#include <optional>

#include "base/bytes.hh"
#include "wire/vnet.hh"

namespace godwit::net {

using Vlan = std::uint16_t;
inline constexpr Vlan kUntagged = 0;  // frames without a tag, or with one that names none
inline constexpr Vlan kMostVlan = 4094;
inline constexpr std::size_t kTagBytes = 4;
inline constexpr std::size_t kTagAt = wire::kVnetBytes + 12;

// A frame of at least wire::kMinFrameBytes. Empty: it has no tag, or is cut off in it.
std::optional<Vlan> vlan_of(BytesView frame);

// The frame with a tag more, of priority 0, or without its outer one, in `out`.
void push_tag(BytesView frame, Vlan vlan, Bytes& out);
void pop_tag(BytesView frame, Bytes& out);

}  // namespace godwit::net
