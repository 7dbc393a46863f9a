#include "net/vlan.hh"

namespace godwit::net {
namespace {

constexpr std::uint16_t kTagType = 0x8100;
constexpr Vlan kVlanBits = 0x0fff;

void shift_offsets(Bytes& frame, int by) {
  const auto bytes = std::span(frame).first<wire::kVnetBytes>();
  wire::VnetHeader vnet = wire::read_vnet(bytes);
  const auto shift = [by](std::uint16_t& offset) {
    offset = static_cast<std::uint16_t>(offset + by);
  };
  if ((vnet.flags & wire::kVnetNeedsChecksum) != 0) shift(vnet.csum_start);
  if (vnet.header_len != 0) shift(vnet.header_len);
  wire::write_vnet(vnet, bytes);
}

}  // namespace

std::optional<Vlan> vlan_of(BytesView frame) {
  const bool has_tag = frame.size() >= kTagAt + kTagBytes + 2 &&
                       from_big_endian<std::uint16_t>(&frame[kTagAt]) == kTagType;
  if (!has_tag) return std::nullopt;
  return from_big_endian<std::uint16_t>(&frame[kTagAt + 2]) & kVlanBits;
}

void push_tag(BytesView frame, Vlan vlan, Bytes& out) {
  out.assign(frame.begin(), frame.begin() + kTagAt);
  Writer(out).u16(kTagType).u16(vlan).bytes(frame.subspan(kTagAt));
  shift_offsets(out, static_cast<int>(kTagBytes));
}

void pop_tag(BytesView frame, Bytes& out) {
  out.assign(frame.begin(), frame.begin() + kTagAt);
  append(out, frame.subspan(kTagAt + kTagBytes));
  shift_offsets(out, -static_cast<int>(kTagBytes));
}

}  // namespace godwit::net
