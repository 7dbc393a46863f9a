#include "wire/vnet.hh"

#include <algorithm>

namespace godwit::wire {
namespace {

constexpr std::uint16_t kIp4 = 0x0800;
constexpr std::uint16_t kIp6 = 0x86dd;
constexpr std::uint16_t kVlan = 0x8100;
constexpr std::uint16_t kServiceVlan = 0x88a8;
constexpr int kMaxVlanTags = 2;
constexpr std::size_t kIp4Bytes = 20;
constexpr std::size_t kIp6Bytes = 40;
constexpr std::size_t kTcpBytes = 20;
constexpr std::size_t kUdpBytes = 8;
constexpr std::uint16_t kTcpChecksumOffset = 16;
constexpr std::uint16_t kUdpChecksumOffset = 6;
constexpr std::uint16_t kGsoByFragments = 0xffff;  // a special value inside Linux
constexpr auto kProtocolTcp = std::byte{6};
constexpr auto kProtocolUdp = std::byte{17};

std::uint16_t little_endian(const std::byte* at) {
  return static_cast<std::uint16_t>(std::to_integer<unsigned>(at[0]) |
                                    std::to_integer<unsigned>(at[1]) << 8);
}
void to_little_endian(std::uint16_t value, std::byte* at) {
  at[0] = static_cast<std::byte>(value & 0xff);
  at[1] = static_cast<std::byte>(value >> 8);
}
std::uint16_t u16_at(BytesView bytes, std::size_t at) {
  return from_big_endian<std::uint16_t>(&bytes[at]);
}

// Offset of the layer-3 header and its EtherType.
struct Network {
  std::size_t offset = 0;
  std::uint16_t type = 0;
};
std::optional<Network> find_network(BytesView ethernet) {
  Reader reader(ethernet);
  reader.bytes(12);
  std::uint16_t type = reader.u16();
  for (int tags = 0; tags < kMaxVlanTags && (type == kVlan || type == kServiceVlan); ++tags) {
    reader.bytes(2);
    type = reader.u16();
  }
  if (!reader.ok()) return std::nullopt;
  return Network{ethernet.size() - reader.remaining(), type};
}

// Sets l3, end, is_ip6; checks that the layer-4 header can begin where the vnet header says.
bool parse_ip4(BytesView ethernet, std::byte protocol, SuperFrameLayout& layout) {
  if (ethernet.size() < layout.l3 + kIp4Bytes) return false;
  const BytesView ip = ethernet.subspan(layout.l3);
  const std::size_t header = std::to_integer<std::size_t>(ip[0] & std::byte{0x0f}) * 4;
  layout.end = layout.l3 + u16_at(ip, 2);
  const bool is_fragment = (u16_at(ip, 6) & 0x3fff) != 0;  // more fragments, or an offset
  return (ip[0] >> 4) == std::byte{4} && header >= kIp4Bytes && layout.l4 == layout.l3 + header &&
         ip[9] == protocol && !is_fragment;
}

// Extension headers may stand between; the vnet header's csum_start tells where they end.
bool parse_ip6(BytesView ethernet, std::byte protocol, SuperFrameLayout& layout) {
  if (ethernet.size() < layout.l3 + kIp6Bytes) return false;
  const BytesView ip = ethernet.subspan(layout.l3);
  layout.is_ip6 = true;
  layout.end = layout.l3 + kIp6Bytes + u16_at(ip, 4);
  const bool direct = layout.l4 == layout.l3 + kIp6Bytes;
  return (ip[0] >> 4) == std::byte{6} && layout.l4 >= layout.l3 + kIp6Bytes &&
         (!direct || ip[6] == protocol);
}

bool check_checksum(const VnetHeader& vnet, std::size_t ethernet_bytes) {
  return vnet.csum_start >= kEthernetBytes && vnet.csum_start <= kMaxChecksumStart &&
         std::size_t{vnet.csum_start} + vnet.csum_offset + 2 <= ethernet_bytes;
}

}  // namespace

VnetHeader read_vnet(std::span<const std::byte, kVnetBytes> bytes) {
  return {.flags = std::to_integer<std::uint8_t>(bytes[0]),
          .gso = std::to_integer<std::uint8_t>(bytes[1]),
          .header_len = little_endian(&bytes[2]),
          .gso_size = little_endian(&bytes[4]),
          .csum_start = little_endian(&bytes[6]),
          .csum_offset = little_endian(&bytes[8])};
}

void write_vnet(const VnetHeader& header, std::span<std::byte, kVnetBytes> out) {
  out[0] = std::byte{header.flags};
  out[1] = std::byte{header.gso};
  to_little_endian(header.header_len, &out[2]);
  to_little_endian(header.gso_size, &out[4]);
  to_little_endian(header.csum_start, &out[6]);
  to_little_endian(header.csum_offset, &out[8]);
}

std::optional<SuperFrameLayout> parse_super_frame(const VnetHeader& vnet, BytesView ethernet) {
  const bool is_udp = vnet.gso == static_cast<std::uint8_t>(GsoType::udp);
  const bool is_tcp4 = vnet.gso_type() == GsoType::tcp4;
  const bool is_tcp6 = vnet.gso_type() == GsoType::tcp6;
  if (!is_udp && !is_tcp4 && !is_tcp6) return std::nullopt;
  // virtio 1.2, 5.1.6.2: a super-frame always leaves its checksum to be finished.
  if ((vnet.flags & kVnetNeedsChecksum) == 0) return std::nullopt;
  if (vnet.csum_offset != (is_udp ? kUdpChecksumOffset : kTcpChecksumOffset)) return std::nullopt;
  if (vnet.gso_size < kMinGsoSize || vnet.gso_size == kGsoByFragments) return std::nullopt;

  const auto network = find_network(ethernet);
  if (!network) return std::nullopt;
  SuperFrameLayout layout{.is_udp = is_udp, .l3 = network->offset, .l4 = vnet.csum_start};
  const std::byte protocol = is_udp ? kProtocolUdp : kProtocolTcp;
  const bool ip_is_good =
      (network->type == kIp4 && !is_tcp6 && parse_ip4(ethernet, protocol, layout)) ||
      (network->type == kIp6 && !is_tcp4 && parse_ip6(ethernet, protocol, layout));
  const std::size_t shortest = layout.l4 + (is_udp ? kUdpBytes : kTcpBytes);
  if (!ip_is_good || ethernet.size() < shortest) return std::nullopt;
  layout.payload = shortest;
  if (!is_udp) {
    const std::byte data_offset = ethernet[layout.l4 + 12] >> 4;
    layout.payload = layout.l4 + std::to_integer<std::size_t>(data_offset) * 4;
  }
  if (layout.payload < shortest || ethernet.size() < layout.payload) return std::nullopt;
  if (layout.end <= layout.payload) return std::nullopt;  // a super-frame has payload
  return layout;
}

bool check_vnet(BytesView frame) {
  if (frame.size() < kMinFrameBytes || frame.size() > kMaxFrameBytes) return false;
  const VnetHeader vnet = read_vnet(frame.first<kVnetBytes>());
  const BytesView ethernet = frame.subspan(kVnetBytes);
  const bool needs_checksum = (vnet.flags & kVnetNeedsChecksum) != 0;
  if ((vnet.flags & ~(kVnetNeedsChecksum | kVnetDataValid)) != 0) return false;
  if (vnet.header_len > ethernet.size()) return false;
  if (vnet.header_len != 0 && vnet.header_len < kEthernetBytes) return false;
  if (needs_checksum && !check_checksum(vnet, ethernet.size())) return false;
  if (vnet.gso == 0) return true;

  const auto layout = parse_super_frame(vnet, ethernet);
  if (!layout || layout->end > ethernet.size()) return false;
  return !layout->is_udp ||
         ethernet.size() - layout->payload <= kMaxUdpSegments * std::size_t{vnet.gso_size};
}

}  // namespace godwit::wire
