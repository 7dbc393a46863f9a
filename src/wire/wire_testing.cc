#include "wire/wire_testing.hh"

namespace godwit::wire::testing {

std::uint16_t folded_sum(BytesView bytes, std::uint64_t sum) {
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    sum += std::to_integer<std::uint64_t>(bytes[i]) << (i % 2 == 0 ? 8 : 0);
  }
  while (sum > 0xffff) sum = (sum >> 16) + (sum & 0xffff);
  return static_cast<std::uint16_t>(sum);
}

namespace {

// The folded, uncomplemented sum of a pseudo-header (RFC 9293, 3.1; RFC 8200, 8.1).
std::uint16_t pseudo_sum(BytesView addresses, std::uint8_t protocol, std::size_t length) {
  return folded_sum(addresses, protocol + length);
}

void add_ethernet(Bytes& frame, const SuperFrameSpec& spec) {
  append(frame, from_hex("52540000000252540000000a"));
  if (spec.has_vlan) append(frame, from_hex("8100002a"));
  append(frame, from_hex(spec.is_ip6 ? "86dd" : "0800"));
}

// Returns the sum of the pseudo-header.
std::uint16_t add_ip(Bytes& frame, const SuperFrameSpec& spec, std::size_t l4_bytes) {
  const std::uint8_t protocol = spec.is_udp ? 17 : 6;
  Writer writer(frame);
  if (spec.is_ip6) {
    writer.u32(0x60000000).u16(static_cast<std::uint16_t>(l4_bytes)).u8(protocol).u8(64);
    writer.bytes(from_hex("fd000000000000000000000000000001fd00000000000000000000000000cafe"));
    return pseudo_sum(BytesView(frame).last(32), protocol, l4_bytes);
  }
  const std::size_t start = frame.size();
  writer.u8(0x45).u8(0).u16(static_cast<std::uint16_t>(20 + l4_bytes)).u16(0xfffe).u16(0x4000);
  writer.u8(64).u8(protocol).u16(0).u32(0x0a000001).u32(0xc0a8fffe);
  const std::uint16_t sum = folded_sum(BytesView(frame).subspan(start), 0);
  to_big_endian(static_cast<std::uint16_t>(~sum), &frame[start + 10]);
  return pseudo_sum(BytesView(frame).last(8), protocol, l4_bytes);
}

void add_l4(Bytes& frame, const SuperFrameSpec& spec, std::size_t l4_bytes, std::uint16_t seed) {
  Writer writer(frame);
  writer.u16(40000).u16(5201);
  if (spec.is_udp) {
    writer.u16(static_cast<std::uint16_t>(l4_bytes)).u16(seed);
    return;
  }
  writer.u32(spec.sequence).u32(77).u8(static_cast<std::uint8_t>((20 + spec.options) / 4 << 4));
  writer.u8(spec.tcp_flags).u16(512).u16(seed).u16(0);
  frame.insert(frame.end(), spec.options, std::byte{1});  // NOP
}

}  // namespace

Bytes super_frame(const SuperFrameSpec& spec, Random& random) {
  const std::size_t l4_header = spec.is_udp ? 8 : 20 + spec.options;
  const std::size_t l4_bytes = l4_header + spec.payload;
  Bytes frame(kVnetBytes);
  add_ethernet(frame, spec);
  const std::uint16_t seed = add_ip(frame, spec, l4_bytes);
  const std::size_t l4 = frame.size() - kVnetBytes;
  add_l4(frame, spec, l4_bytes, seed);
  const auto gso = spec.is_udp ? GsoType::udp : spec.is_ip6 ? GsoType::tcp6 : GsoType::tcp4;
  const VnetHeader vnet{
      .flags = kVnetNeedsChecksum,
      .gso = static_cast<std::uint8_t>(static_cast<unsigned>(gso) | (spec.ecn ? kGsoEcn : 0u)),
      .header_len = static_cast<std::uint16_t>(frame.size() - kVnetBytes),
      .gso_size = spec.gso_size,
      .csum_start = static_cast<std::uint16_t>(l4),
      .csum_offset = static_cast<std::uint16_t>(spec.is_udp ? 6 : 16)};
  write_vnet(vnet, MutableBytes(frame).first<kVnetBytes>());
  for (std::size_t i = 0; i < spec.payload; ++i) frame.push_back(static_cast<std::byte>(random()));
  return frame;
}

}  // namespace godwit::wire::testing
