#include "net/packet.hh"

#include <algorithm>
#include <array>

namespace godwit::net {
namespace {

enum Header : std::uint8_t { kHopByHop = 0, kRouting = 43, kFragment = 44, kOptions = 60 };
constexpr int kMostHeaders = 8;  // extension headers in a row

std::uint16_t u16_at(BytesView bytes, std::size_t at) {
  return from_big_endian<std::uint16_t>(&bytes[at]);
}

std::optional<IpPacket> read_ip4(BytesView frame, std::size_t l3, bool is_quoted) {
  if (frame.size() < l3 + kIp4Bytes) return std::nullopt;
  const BytesView ip = frame.subspan(l3);
  const std::size_t header = std::to_integer<std::size_t>(ip[0] & std::byte{0x0f}) * 4;
  const std::size_t length = u16_at(ip, 2);
  if (header < kIp4Bytes || length < header || ip.size() < header) return std::nullopt;
  if (!is_quoted && (ip.size() < length || checksum_of(ip.first(header)) != 0)) return std::nullopt;
  const std::uint16_t fragment = u16_at(ip, 6);
  return IpPacket{.is_ip4 = true,
                  .l3 = l3,
                  .l4 = l3 + header,
                  .end = l3 + length,
                  .source = Ip::at4(&ip[12]),
                  .destination = Ip::at4(&ip[16]),
                  .protocol = std::to_integer<std::uint8_t>(ip[9]),
                  .hops = std::to_integer<std::uint8_t>(ip[8]),
                  .fragment_offset = static_cast<std::uint16_t>((fragment & 0x1fff) * 8),
                  .has_more = (fragment & 0x2000) != 0,
                  .fragment_id = u16_at(ip, 4)};
}

// RFC 8200, 4. What no header is known for is the protocol.
std::optional<IpPacket> read_ip6(BytesView frame, std::size_t l3, bool is_quoted) {
  if (frame.size() < l3 + kIp6Bytes) return std::nullopt;
  const BytesView ip = frame.subspan(l3);
  IpPacket packet{.is_ip4 = false,
                  .l3 = l3,
                  .l4 = l3 + kIp6Bytes,
                  .end = l3 + kIp6Bytes + u16_at(ip, 4),
                  .source = Ip::at6(&ip[8]),
                  .destination = Ip::at6(&ip[24]),
                  .protocol = std::to_integer<std::uint8_t>(ip[6]),
                  .hops = std::to_integer<std::uint8_t>(ip[7])};
  if (packet.end > frame.size() && !is_quoted) return std::nullopt;
  // ::ffff:a.b.c.d stands for an IPv4 address and is never on a wire (RFC 4291, 2.5.5.2): a flow or
  // a neighbour would be taken for IPv4's of that address.
  if (packet.source.is4() || packet.destination.is4()) return std::nullopt;
  for (int i = 0; i < kMostHeaders && packet.fragment_offset == 0; ++i) {
    const std::uint8_t type = packet.protocol;
    if (type != kHopByHop && type != kRouting && type != kFragment && type != kOptions) break;
    if (packet.l4 + 8 > std::min(packet.end, frame.size())) return std::nullopt;
    const std::byte* at = &frame[packet.l4];
    packet.protocol = std::to_integer<std::uint8_t>(at[0]);
    if (type == kFragment) {
      const auto fragment = from_big_endian<std::uint16_t>(at + 2);
      packet.fragment_offset = fragment & 0xfff8;
      packet.has_more = (fragment & 1) != 0;
      packet.fragment_id = from_big_endian<std::uint32_t>(at + 4);
      packet.l4 += 8;
    } else {
      packet.l4 += (std::to_integer<std::size_t>(at[1]) + 1) * 8;
    }
    if (packet.l4 > packet.end) return std::nullopt;
  }
  return packet;
}

}  // namespace

void write_mac(Mac mac, std::byte* at) {
  to_big_endian(static_cast<std::uint16_t>(mac >> 32), at);
  to_big_endian(static_cast<std::uint32_t>(mac), at + 2);
}

void append_mac(Mac mac, Bytes& out) {
  out.resize(out.size() + 6);
  write_mac(mac, &out[out.size() - 6]);
}

void write_ethernet(Mac destination, Mac source, std::uint16_t type, Bytes& out) {
  out.assign(wire::kVnetBytes, std::byte{0});
  append_mac(destination, out);
  append_mac(source, out);
  Writer(out).u16(type);
}

void write_ip(const IpEnds& ends, std::uint8_t protocol, std::size_t bytes, Bytes& out) {
  const bool is_ip4 = ends.source.is4();
  write_ethernet(ends.destination_mac, ends.source_mac, is_ip4 ? kTypeIp4 : kTypeIp6, out);
  Writer writer(out);
  if (is_ip4) {
    writer.u8(0x45).u8(0).u16(static_cast<std::uint16_t>(kIp4Bytes + bytes)).u32(0);
    writer.u8(ends.hops).u8(protocol).u16(0).u32(ends.source.as4()).u32(ends.destination.as4());
    to_big_endian(checksum_of(BytesView(out).subspan(kPayloadAt)), &out[kPayloadAt + 10]);
  } else {
    writer.u32(0x60000000).u16(static_cast<std::uint16_t>(bytes)).u8(protocol).u8(ends.hops);
    writer.u64(ends.source.high).u64(ends.source.low);
    writer.u64(ends.destination.high).u64(ends.destination.low);
  }
}

void write_udp(const IpEnds& ends, std::uint16_t source, std::uint16_t destination,
               BytesView payload, Bytes& out) {
  const std::size_t length = kUdpBytes + payload.size();
  write_ip(ends, kUdp, length, out);
  const std::size_t l4 = out.size();
  Writer(out)
      .u16(source)
      .u16(destination)
      .u16(static_cast<std::uint16_t>(length))
      .u16(0)
      .bytes(payload);
  const std::uint64_t pseudo = pseudo_sum(ends.source, ends.destination, kUdp, length);
  const std::uint16_t sum = checksum_of(BytesView(out).subspan(l4), pseudo);
  to_big_endian(sum == 0 ? std::uint16_t{0xffff} : sum, &out[l4 + 6]);
}

void set_hops(MutableBytes frame, const IpPacket& packet, std::uint8_t hops) {
  std::byte& field = frame[packet.l3 + (packet.is_ip4 ? 8 : 7)];
  if (packet.is_ip4) {
    ChecksumChange change;
    const auto word = [&] { return from_big_endian<std::uint16_t>(&frame[packet.l3 + 8]); };
    const std::uint16_t before = word();
    field = std::byte{hops};
    change.replace(before, word());
    change.apply(&frame[packet.l3 + 10]);
  } else {
    field = std::byte{hops};
  }
}

std::optional<IpPacket> read_ip(BytesView frame, std::size_t l3, bool is_quoted) {
  if (frame.size() <= l3) return std::nullopt;
  switch (std::to_integer<int>(frame[l3] >> 4)) {
    case 4:
      return read_ip4(frame, l3, is_quoted);
    case 6:
      return read_ip6(frame, l3, is_quoted);
    default:
      return std::nullopt;
  }
}

std::optional<IpPacket> read_ip_frame(BytesView frame) {
  if (frame.size() < kPayloadAt) return std::nullopt;
  const std::uint16_t type = u16_at(frame, kTypeAt);
  if (type != kTypeIp4 && type != kTypeIp6) return std::nullopt;
  const auto packet = read_ip(frame, kPayloadAt);
  return packet && packet->is_ip4 == (type == kTypeIp4) ? packet : std::nullopt;
}

// Eight bytes at a time: a sum of 32-bit halves is one of 16-bit words, 2^16 being 1 in it.
std::uint64_t sum_of(BytesView bytes, std::uint64_t sum) {
  std::size_t at = 0;
  for (; at + 8 <= bytes.size(); at += 8) {
    const auto word = from_big_endian<std::uint64_t>(&bytes[at]);
    sum += (word >> 32) + (word & 0xffffffff);
  }
  for (; at + 2 <= bytes.size(); at += 2) sum += from_big_endian<std::uint16_t>(&bytes[at]);
  if (at < bytes.size()) sum += std::to_integer<std::uint64_t>(bytes[at]) << 8;
  return sum;
}

std::uint16_t fold(std::uint64_t sum) {
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(sum);
}

std::uint64_t pseudo_sum(Ip source, Ip destination, std::uint8_t protocol, std::size_t bytes) {
  std::array<std::byte, 32> addresses{};
  source.write(addresses.data());
  destination.write(addresses.data() + source.size());
  return sum_of(BytesView(addresses).first(source.size() + destination.size()), protocol + bytes);
}

void ChecksumChange::replace(Ip old_ip, Ip new_ip) {
  if (old_ip.is4() && new_ip.is4()) {  // a sum of halves, as in sum_of()
    sum_ += std::uint64_t{~old_ip.as4()} + new_ip.as4();
    return;
  }
  std::array<std::byte, 16> before{}, after{};
  old_ip.write(before.data());
  new_ip.write(after.data());
  for (std::size_t i = 0; i < old_ip.size(); i += 2) {
    replace(from_big_endian<std::uint16_t>(&before[i]), from_big_endian<std::uint16_t>(&after[i]));
  }
}

void ChecksumChange::apply(std::byte* field) const {
  const auto old = static_cast<std::uint16_t>(~from_big_endian<std::uint16_t>(field));
  to_big_endian(static_cast<std::uint16_t>(~fold(old + sum_)), field);
}

void ChecksumChange::apply_to_seed(std::byte* field) const {
  to_big_endian(fold(from_big_endian<std::uint16_t>(field) + sum_), field);
}

}  // namespace godwit::net
