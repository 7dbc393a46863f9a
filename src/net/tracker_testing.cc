#include "net/tracker_testing.hh"

#include <algorithm>

namespace godwit::net {
namespace {

using wire::testing::folded_sum;

constexpr std::size_t kIcmpBytes = 8;

std::uint16_t plain_pseudo_sum(const IpPacket& packet) {
  Bytes words(32);
  packet.source.write(words.data());
  packet.destination.write(&words[packet.source.size()]);
  words.resize(packet.source.size() * 2);
  return folded_sum(words, packet.protocol + packet.end - packet.l4);
}

bool has_pseudo_header(const IpPacket& packet) { return packet.protocol != kIcmp; }

std::size_t checksum_at(const IpPacket& packet) {
  return packet.l4 + (packet.protocol == kTcp ? 16 : packet.protocol == kUdp ? 6 : 2);
}

void add_ip(Bytes& frame, const PacketSpec& spec, std::size_t length) {
  const bool is_ip4 = spec.source.is4();
  Writer writer(frame);
  writer.u16(is_ip4 ? kTypeIp4 : kTypeIp6);
  const std::size_t l3 = frame.size();
  const bool is_icmp6 = !is_ip4 && spec.protocol == kIcmp;
  const std::uint8_t protocol = is_icmp6 ? std::uint8_t{kIcmp6} : spec.protocol;
  Bytes addresses(spec.source.size() * 2);
  spec.source.write(addresses.data());
  spec.destination.write(&addresses[spec.source.size()]);
  if (!is_ip4) {
    writer.u32(0x60000000).u16(static_cast<std::uint16_t>(length)).u8(protocol).u8(spec.hops);
    writer.bytes(addresses);
    return;
  }
  writer.u16(0x4500).u16(static_cast<std::uint16_t>(length + kIp4Bytes)).u16(spec.id).u16(0);
  writer.u8(spec.hops).u8(protocol).u16(0).bytes(addresses);
  const auto sum = static_cast<std::uint16_t>(~folded_sum(BytesView(frame).subspan(l3), 0));
  to_big_endian(sum, &frame[l3 + 10]);
}

Bytes layer4_of(const PacketSpec& spec) {
  Bytes bytes;
  Writer writer(bytes);
  const BytesView payload = as_bytes(spec.payload);
  switch (spec.protocol) {
    case kTcp:
      writer.u16(spec.source_port).u16(spec.destination_port);
      writer.u32(spec.sequence).u32(spec.acknowledged).u8(0x50).u8(spec.flags).u16(spec.window);
      writer.u32(0);
      break;
    case kUdp:
      writer.u16(spec.source_port).u16(spec.destination_port);
      writer.u16(static_cast<std::uint16_t>(kUdpBytes + payload.size())).u16(0);
      break;
    case kIcmp:
      writer.u8(spec.icmp_type).u8(0).u16(0).u16(spec.source_port).u16(1);
      break;
    default:
      break;
  }
  writer.bytes(payload);
  return bytes;
}

void finish(Bytes& frame, const PacketSpec& spec) {
  const auto packet = read_ip_frame(frame).value();
  const bool is_known = spec.protocol == kTcp || spec.protocol == kUdp || spec.protocol == kIcmp;
  if (!is_known || (spec.protocol == kUdp && !spec.has_checksum)) return;
  const std::size_t at = checksum_at(packet);
  const std::uint16_t pseudo = has_pseudo_header(packet) ? plain_pseudo_sum(packet) : 0;
  if (spec.needs_checksum) {
    to_big_endian(pseudo, &frame[at]);
    wire::write_vnet({.flags = wire::kVnetNeedsChecksum,
                      .csum_start = static_cast<std::uint16_t>(packet.l4 - wire::kVnetBytes),
                      .csum_offset = static_cast<std::uint16_t>(at - packet.l4)},
                     MutableBytes(frame).first<wire::kVnetBytes>());
    return;
  }
  const std::uint16_t sum = folded_sum(BytesView(frame).subspan(packet.l4), pseudo);
  to_big_endian(static_cast<std::uint16_t>(sum == 0xffff && spec.protocol == kUdp ? 0xffff : ~sum),
                &frame[at]);
}

// Of what is there in whole.
std::string layer4_fault(BytesView frame, const IpPacket& packet) {
  if (packet.is_fragment() || packet.end > frame.size()) return "";
  if (packet.protocol != kTcp && packet.protocol != kUdp && packet.protocol != kIcmp &&
      packet.protocol != kIcmp6) {
    return "";
  }
  const auto field = from_big_endian<std::uint16_t>(&frame[checksum_at(packet)]);
  if (packet.protocol == kUdp && field == 0) return "";
  const std::uint16_t pseudo = has_pseudo_header(packet) ? plain_pseudo_sum(packet) : 0;
  const std::size_t length = packet.end - packet.l4;
  const bool is_right = folded_sum(frame.subspan(packet.l4, length), pseudo) == 0xffff;
  return is_right ? "" : "checksum of layer 4";
}

bool is_error(BytesView frame, const IpPacket& packet) {
  if (packet.is_fragment() || (packet.protocol != kIcmp && packet.protocol != kIcmp6)) return false;
  const auto type = std::to_integer<int>(frame[packet.l4]);
  if (packet.protocol == kIcmp) return type == 3 || type == 5 || type == 11 || type == 12;
  return type < 128;
}

}  // namespace

Bytes arrived(BytesView frame) {
  if ((frame[0] & std::byte{wire::kVnetNeedsChecksum}) == std::byte{0}) return to_bytes(frame);
  Bytes finished(wire::kVnetBytes);
  append(finished, wire::testing::offload(frame).at(0));
  return finished;
}

Bytes packet_of(const PacketSpec& spec) {
  Bytes frame(wire::kVnetBytes + 12);
  write_macs(frame, 0x02000000000a, 0x02000000000b);
  const Bytes layer4 = layer4_of(spec);
  add_ip(frame, spec, layer4.size());
  append(frame, layer4);
  finish(frame, spec);
  return frame;
}

Bytes icmp_error(BytesView about, Ip from, std::uint8_t type, std::size_t quoted) {
  const Bytes got = arrived(about);
  const auto packet = read_ip_frame(got).value();
  const BytesView ip_packet = BytesView(got).subspan(packet.l3, packet.end - packet.l3);
  return packet_of(
      {.source = from,
       .destination = packet.source,
       .protocol = kIcmp,
       .icmp_type = type,
       .payload = std::string(as_text(ip_packet.first(std::min(quoted, ip_packet.size()))))});
}

std::vector<Bytes> fragments_of(BytesView frame, std::size_t bytes) {
  const auto packet = read_ip_frame(frame).value();
  std::vector<Bytes> fragments;
  for (std::size_t from = packet.l4; from < packet.end; from += bytes) {
    const std::size_t size = std::min(bytes, packet.end - from);
    Bytes one = to_bytes(frame.first(packet.l4));
    append(one, frame.subspan(from, size));
    const bool has_more = from + size < packet.end;
    const std::size_t offset = (from - packet.l4) / 8 | (has_more ? 0x2000U : 0U);
    std::byte* const header = &one[packet.l3];
    to_big_endian(static_cast<std::uint16_t>(packet.l4 - packet.l3 + size), header + 2);
    to_big_endian(static_cast<std::uint16_t>(offset), header + 6);
    to_big_endian(std::uint16_t{0}, header + 10);
    const BytesView whole(header, packet.l4 - packet.l3);
    to_big_endian(static_cast<std::uint16_t>(~folded_sum(whole, 0)), header + 10);
    fragments.push_back(std::move(one));
  }
  return fragments;
}

Bytes whole_of(const std::vector<Bytes>& fragments) {
  Bytes whole = fragments.at(0);
  const auto first = read_ip_frame(whole).value();
  for (std::size_t i = 1; i < fragments.size(); ++i) {
    append(whole, BytesView(fragments[i]).subspan(first.l4));
  }
  std::byte* const header = &whole[first.l3];
  to_big_endian(static_cast<std::uint16_t>(whole.size() - first.l3), header + 2);
  to_big_endian(std::uint16_t{0}, header + 6);
  to_big_endian(std::uint16_t{0}, header + 10);
  const auto sum = static_cast<std::uint16_t>(~folded_sum(BytesView(header, kIp4Bytes), 0));
  to_big_endian(sum, header + 10);
  return whole;
}

std::string fault_of(BytesView frame) {
  if (!wire::check_vnet(frame)) return "vnet header";
  const auto packet = read_ip_frame(frame);
  if (!packet) return "IP header";
  const auto vnet = wire::read_vnet(frame.first<wire::kVnetBytes>());
  if (vnet.gso != 0) {
    for (const Bytes& each : wire::testing::offload(frame)) {
      if (auto fault = wire::testing::fault_in(each); !fault.empty()) return fault;
    }
    return "";
  }
  if ((vnet.flags & wire::kVnetNeedsChecksum) != 0) return layer4_fault(arrived(frame), *packet);
  if (auto fault = layer4_fault(frame, *packet); !fault.empty()) return fault;
  if (!is_error(frame, *packet)) return "";
  const auto quoted = read_ip(frame, packet->l4 + kIcmpBytes, true);
  if (!quoted) return "quoted IP header";
  const BytesView header = frame.subspan(quoted->l3, quoted->l4 - quoted->l3);
  if (quoted->is_ip4 && folded_sum(header, 0) != 0xffff) return "quoted IP header's checksum";
  const auto fault = layer4_fault(frame, *quoted);
  return fault.empty() ? "" : "quoted " + fault;
}

}  // namespace godwit::net
