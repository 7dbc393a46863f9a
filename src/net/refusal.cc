#include "net/refusal.hh"

#include "net/flow_state.hh"
#include "net/icmp.hh"

namespace godwit::net {
namespace {

constexpr std::size_t kTcpChecksumAt = 16;

bool may_be_answered(BytesView frame, const IpPacket& packet) {
  if (is_group(mac_at(&frame[kMacsAt])) || packet.destination.is_multicast()) return false;
  if (packet.source.is_multicast() || packet.source.is_unspecified()) return false;
  return read_packet(frame, packet, 0).kind == PacketReading::Kind::flow;
}

// RFC 9293, 3.5.2. False: it is one itself.
bool write_reset(BytesView frame, const IpPacket& packet, const IpEnds& ends, Bytes& out) {
  const auto segment = read_tcp(frame, packet);
  if (!segment || segment->has(kRst)) return false;
  const bool has_ack = segment->has(kAck);
  write_ip(ends, kTcp, kTcpBytes, out);
  const std::size_t l4 = out.size();
  Writer(out)
      .u16(from_big_endian<std::uint16_t>(&frame[packet.l4 + 2]))
      .u16(from_big_endian<std::uint16_t>(&frame[packet.l4]))
      .u32(has_ack ? segment->acknowledged : 0)
      .u32(has_ack ? 0 : segment->end())
      .u8(kTcpBytes / 4 << 4)
      .u8(has_ack ? std::uint8_t{kRst} : std::uint8_t{kRst | kAck})
      .u16(0)
      .u32(0);  // the checksum is not yet there
  const std::uint64_t pseudo = pseudo_sum(ends.source, ends.destination, kTcp, kTcpBytes);
  to_big_endian(checksum_of(BytesView(out).subspan(l4), pseudo), &out[l4 + kTcpChecksumAt]);
  return true;
}

}  // namespace

bool refuse(BytesView frame, const IpPacket& packet, Ip own, Bytes& out) {
  if (!may_be_answered(frame, packet)) return false;
  const IpEnds ends{.source_mac = mac_at(&frame[kMacsAt]),
                    .destination_mac = mac_at(&frame[kMacsAt + 6]),
                    .source = packet.destination,
                    .destination = packet.source};
  if (packet.protocol == kTcp) {
    if (!write_reset(frame, packet, ends, out)) return false;
  } else {
    const Ip source = own == Ip{} ? packet.destination : own;
    if (source.is4() != packet.is_ip4) return false;
    write_icmp_error(IcmpError::prohibited, 0, frame, packet, source, ends.source_mac, out);
  }
  // With its tag, if it has one.
  const BytesView tag = frame.subspan(kTypeAt, packet.l3 - kPayloadAt);
  out.insert(out.begin() + kTypeAt, tag.begin(), tag.end());
  return true;
}

}  // namespace godwit::net
