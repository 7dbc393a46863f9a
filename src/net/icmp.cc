#include "net/icmp.hh"

#include <algorithm>

namespace godwit::net {
namespace {

constexpr std::uint8_t kHops = 64;
constexpr std::size_t kIcmpBytes = 8;
// RFC 1812, 4.3.2.3: as much as fits 576 bytes; RFC 4443, 2.4 (c): the least MTU.
constexpr std::size_t kMostBytes4 = 576, kMostBytes6 = 1280;

struct Code {
  std::uint8_t type, code;
};

Code code4(IcmpError error) {
  switch (error) {
    case IcmpError::no_route:
      return {3, 0};
    case IcmpError::no_host:
      return {3, 1};
    case IcmpError::no_port:
      return {3, 3};
    case IcmpError::prohibited:
      return {3, 13};
    case IcmpError::too_big:
      return {3, 4};
    case IcmpError::hops_exceeded:
      return {11, 0};
  }
  return {3, 0};
}

Code code6(IcmpError error) {
  switch (error) {
    case IcmpError::no_route:
      return {1, 0};
    case IcmpError::no_host:
      return {1, 3};
    case IcmpError::no_port:
      return {1, 4};
    case IcmpError::prohibited:
      return {1, 1};
    case IcmpError::too_big:
      return {2, 0};
    case IcmpError::hops_exceeded:
      return {3, 0};
  }
  return {1, 0};
}

// Errors of ICMP, and redirects.
bool is_error(bool is_ip4, std::uint8_t type) {
  if (!is_ip4) return type < 128 || type == 137;
  return type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
}

bool needs_checksum(BytesView frame) {
  return (frame[0] & std::byte{wire::kVnetNeedsChecksum}) != std::byte{0};
}

}  // namespace

bool answer_echo(MutableBytes frame, const IpPacket& packet) {
  const std::uint8_t protocol = packet.is_ip4 ? kIcmp : kIcmp6;
  const auto request = std::byte(packet.is_ip4 ? 8 : 128),
             reply = std::byte(packet.is_ip4 ? 0 : 129);
  if (packet.protocol != protocol || packet.is_fragment() || !packet.has_l4(frame, kIcmpBytes) ||
      frame[packet.l4] != request) {
    return false;
  }
  const auto word = [&] { return from_big_endian<std::uint16_t>(&frame[packet.l4]); };
  const std::uint16_t before = word();
  frame[packet.l4] = reply;
  if (!needs_checksum(frame)) {
    ChecksumChange change;
    change.replace(before, word());
    change.apply(&frame[packet.l4 + 2]);
  }
  const std::size_t size = packet.source.size();
  const std::size_t sources = packet.l3 + (packet.is_ip4 ? 12 : 8);
  std::swap_ranges(&frame[sources], &frame[sources + size], &frame[sources + size]);
  std::swap_ranges(&frame[kMacsAt], &frame[kMacsAt + 6], &frame[kMacsAt + 6]);
  set_hops(frame, packet, kHops);
  return true;
}

bool may_tell_error(BytesView frame, const IpPacket& packet) {
  if (packet.fragment_offset != 0 || is_group(mac_at(&frame[kMacsAt]))) return false;
  if (packet.source.is_unspecified() || packet.source.is_multicast() ||
      packet.source.is_loopback() || packet.source == Ip::of4(0xffffffff) ||
      packet.destination.is_multicast()) {
    return false;
  }
  if (packet.protocol != (packet.is_ip4 ? kIcmp : kIcmp6)) return true;
  return packet.has_l4(frame, 1) &&
         !is_error(packet.is_ip4, std::to_integer<std::uint8_t>(frame[packet.l4]));
}

void write_icmp_error(IcmpError error, std::uint16_t mtu, BytesView frame, const IpPacket& packet,
                      Ip source, Mac source_mac, Bytes& out) {
  const std::size_t header = packet.is_ip4 ? kIp4Bytes : kIp6Bytes;
  const std::size_t most = (packet.is_ip4 ? kMostBytes4 : kMostBytes6) - header - kIcmpBytes;
  const BytesView quoted =
      frame.subspan(packet.l3, std::min(most, std::min(packet.end, frame.size()) - packet.l3));
  const std::size_t bytes = kIcmpBytes + quoted.size();
  const std::uint8_t protocol = packet.is_ip4 ? kIcmp : kIcmp6;
  write_ip({.source_mac = source_mac,
            .destination_mac = mac_at(&frame[kMacsAt + 6]),
            .source = source,
            .destination = packet.source,
            .hops = kHops},
           protocol, bytes, out);
  const std::size_t l4 = out.size();
  const Code code = packet.is_ip4 ? code4(error) : code6(error);
  Writer(out)
      .u8(code.type)
      .u8(code.code)
      .u16(0)
      .u32(error == IcmpError::too_big ? mtu : 0)
      .bytes(quoted);
  const std::uint64_t pseudo =
      packet.is_ip4 ? 0 : pseudo_sum(source, packet.source, protocol, bytes);
  to_big_endian(checksum_of(BytesView(out).subspan(l4), pseudo), &out[l4 + 2]);
}

}  // namespace godwit::net
