// Segmentation and checksum offload as a model: from the RFCs, sharing no code with wire/salvage.
#include <fmt/format.h>

#include "wire/wire_testing.hh"

namespace godwit::wire::testing {
namespace {

struct Parts {
  std::size_t ip = 0;
  std::size_t l4 = 0;
  std::size_t payload = 0;
  bool is_ip6 = false;
  std::uint8_t protocol = 0;
};

std::uint16_t u16(BytesView bytes, std::size_t at) {
  return from_big_endian<std::uint16_t>(&bytes[at]);
}
void set_u16(Bytes& bytes, std::size_t at, std::size_t value) {
  to_big_endian(static_cast<std::uint16_t>(value), &bytes[at]);
}

Parts parts_of(BytesView packet) {
  Parts parts;
  parts.ip = u16(packet, 12) == 0x8100 ? 18 : 14;
  parts.is_ip6 = u16(packet, parts.ip - 2) == 0x86dd;
  parts.l4 = parts.ip + (parts.is_ip6 ? 40 : 20);
  parts.protocol = std::to_integer<std::uint8_t>(packet[parts.ip + (parts.is_ip6 ? 6 : 9)]);
  parts.payload = parts.protocol == 17
                      ? parts.l4 + 8
                      : parts.l4 + std::to_integer<std::size_t>(packet[parts.l4 + 12] >> 4) * 4;
  return parts;
}

std::uint16_t pseudo_sum(BytesView packet, const Parts& parts) {
  const BytesView addresses =
      parts.is_ip6 ? packet.subspan(parts.ip + 8, 32) : packet.subspan(parts.ip + 12, 8);
  return folded_sum(addresses, parts.protocol + packet.size() - parts.l4);
}

std::size_t checksum_at(const Parts& parts) { return parts.l4 + (parts.protocol == 17 ? 6 : 16); }

void finish(Bytes& packet, const Parts& parts, std::size_t segment) {
  const std::size_t ip_bytes = packet.size() - parts.ip;
  if (parts.is_ip6) {
    set_u16(packet, parts.ip + 4, ip_bytes - 40);
  } else {
    set_u16(packet, parts.ip + 2, ip_bytes);
    set_u16(packet, parts.ip + 4, u16(packet, parts.ip + 4) + segment);
    set_u16(packet, parts.ip + 10, 0);
    const std::uint16_t sum = folded_sum(BytesView(packet).subspan(parts.ip, 20), 0);
    set_u16(packet, parts.ip + 10, ~sum & 0xffff);
  }
  if (parts.protocol == 17) set_u16(packet, parts.l4 + 4, packet.size() - parts.l4);
  set_u16(packet, checksum_at(parts), 0);
  const std::uint16_t sum =
      folded_sum(BytesView(packet).subspan(parts.l4), pseudo_sum(packet, parts));
  set_u16(packet, checksum_at(parts), ~sum & 0xffff);
}

}  // namespace

std::vector<Bytes> offload(BytesView frame) {
  const VnetHeader vnet = read_vnet(frame.first<kVnetBytes>());
  const BytesView packet = frame.subspan(kVnetBytes);
  if (vnet.gso == 0) {
    // As the kernel finishes it: the seed lies in the field and is added up with all the rest.
    Bytes whole = to_bytes(packet);
    const std::uint16_t sum = folded_sum(packet.subspan(vnet.csum_start), 0);
    set_u16(whole, std::size_t{vnet.csum_start} + vnet.csum_offset, ~sum & 0xffff);
    return {whole};
  }
  const Parts parts = parts_of(packet);
  std::vector<Bytes> packets;
  const std::size_t total = packet.size() - parts.payload;
  for (std::size_t from = 0; from < total; from += vnet.gso_size) {
    const std::size_t size = std::min<std::size_t>(vnet.gso_size, total - from);
    Bytes one = to_bytes(packet.first(parts.payload));
    append(one, packet.subspan(parts.payload + from, size));
    if (parts.protocol == 6) {
      const auto sequence = from_big_endian<std::uint32_t>(&one[parts.l4 + 4]);
      to_big_endian(sequence + static_cast<std::uint32_t>(from), &one[parts.l4 + 4]);
      if (from > 0) one[parts.l4 + 13] &= ~std::byte{0x80};
      if (from + size < total) one[parts.l4 + 13] &= ~std::byte{0x09};
    }
    finish(one, parts, from / vnet.gso_size);
    packets.push_back(std::move(one));
  }
  return packets;
}

std::string fault_in(BytesView packet) {
  const Parts parts = parts_of(packet);
  const std::size_t ip_bytes = packet.size() - parts.ip;
  const std::size_t stated =
      parts.is_ip6 ? u16(packet, parts.ip + 4) + 40u : u16(packet, parts.ip + 2);
  if (stated != ip_bytes) return fmt::format("IP length {} of {}", stated, ip_bytes);
  if (!parts.is_ip6 && folded_sum(packet.subspan(parts.ip, 20), 0) != 0xffff) {
    return "IP header checksum";
  }
  if (parts.protocol == 17 && u16(packet, parts.l4 + 4) != packet.size() - parts.l4) {
    return "UDP length";
  }
  if (folded_sum(packet.subspan(parts.l4), pseudo_sum(packet, parts)) != 0xffff) {
    return "TCP or UDP checksum";
  }
  return "";
}

bool has_right_seed(BytesView frame) {
  const BytesView packet = frame.subspan(kVnetBytes);
  const Parts parts = parts_of(packet);
  // 0 and 0xffff are the same number in ones' complement.
  return u16(packet, checksum_at(parts)) % 0xffff == pseudo_sum(packet, parts) % 0xffff;
}

}  // namespace godwit::wire::testing
