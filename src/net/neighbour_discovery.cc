#include "net/neighbour_discovery.hh"

namespace godwit::net {
namespace {

constexpr std::uint8_t kRouterAdvertisement = 134;
enum Option : std::uint8_t { kSourceMac = 1, kTargetMac = 2, kPrefix = 3, kMtu = 5, kDns = 25 };
constexpr std::uint32_t kIsRouter = 0x80000000, kIsAnswer = 0x40000000, kOverrides = 0x20000000;
constexpr std::uint32_t kValid = 86'400, kPreferred = 14'400;  // seconds

// An ICMPv6 message in a frame, with its checksum.
void write_message(const IpEnds& ends, std::uint8_t type, BytesView body, Bytes& out) {
  IpEnds with_hops = ends;
  with_hops.hops = kDiscoveryHops;
  write_ip(with_hops, kIcmp6, 4 + body.size(), out);
  const std::size_t l4 = out.size();
  Writer(out).u8(type).u8(0).u16(0).bytes(body);
  const std::uint64_t pseudo = pseudo_sum(ends.source, ends.destination, kIcmp6, 4 + body.size());
  to_big_endian(checksum_of(BytesView(out).subspan(l4), pseudo), &out[l4 + 2]);
}

void add_ip(Ip ip, Bytes& out) { Writer(out).u64(ip.high).u64(ip.low); }

void add_mac_option(Option option, Mac mac, Bytes& out) {
  Writer(out).u8(option).u8(1);
  append_mac(mac, out);
}

bool has_right_sum(BytesView frame, const IpPacket& packet) {
  if ((frame[0] & std::byte{wire::kVnetNeedsChecksum}) != std::byte{0}) return true;
  const std::size_t bytes = packet.end - packet.l4;
  return checksum_of(frame.subspan(packet.l4, bytes),
                     pseudo_sum(packet.source, packet.destination, kIcmp6, bytes)) == 0;
}

}  // namespace

std::optional<Discovery> read_discovery(BytesView frame, const IpPacket& packet) {
  if (packet.is_ip4 || packet.protocol != kIcmp6 || packet.hops != kDiscoveryHops ||
      packet.is_fragment() || !packet.has_l4(frame, 8) || !has_right_sum(frame, packet)) {
    return std::nullopt;
  }
  Reader reader(frame.subspan(packet.l4, packet.end - packet.l4));
  Discovery found{.type = static_cast<Discovery::Type>(reader.u8())};
  const bool is_known = found.type == Discovery::router_solicitation ||
                        found.type == Discovery::solicitation ||
                        found.type == Discovery::advertisement;
  if (!is_known || reader.u8() != 0) return std::nullopt;
  reader.bytes(6);  // checksum; flags or nothing
  if (found.type != Discovery::router_solicitation) {
    const BytesView target = reader.bytes(16);
    if (!reader.ok()) return std::nullopt;
    found.target = Ip::at6(target.data());
  }
  while (reader.remaining() > 0) {
    const std::uint8_t option = reader.u8(), length = reader.u8();
    if (length == 0) return std::nullopt;
    const BytesView value = reader.bytes(length * std::size_t{8} - 2);
    if (!reader.ok()) return std::nullopt;
    if (option == kSourceMac || option == kTargetMac) found.mac = mac_at(value.data());
  }
  const bool is_address = !found.target.is_multicast() && !found.target.is4();
  return reader.ok() && is_address ? std::optional(found) : std::nullopt;
}

Ip link_local_of(Mac mac) {
  const std::uint64_t flipped = mac ^ 0x020000000000;
  return {0xfe80000000000000,
          (flipped >> 24) << 40 | std::uint64_t{0xfffe} << 24 | (flipped & 0xffffff)};
}

Ip solicited_group_of(Ip ip) {
  return {0xff02000000000000, std::uint64_t{0x1ff} << 24 | (ip.low & 0xffffff)};
}

Mac mac_of_group(Ip group) { return 0x333300000000 | (group.low & 0xffffffff); }

void write_solicitation(const IpEnds& ends, Ip target, Bytes& out) {
  Bytes body;
  Writer(body).u32(0);
  add_ip(target, body);
  add_mac_option(kSourceMac, ends.source_mac, body);
  write_message(ends, Discovery::solicitation, body, out);
}

void write_advertisement(const IpEnds& ends, Ip target, Mac mac, bool is_answer, Bytes& out) {
  Bytes body;
  Writer(body).u32(kIsRouter | kOverrides | (is_answer ? kIsAnswer : 0));
  add_ip(target, body);
  add_mac_option(kTargetMac, mac, body);
  write_message(ends, Discovery::advertisement, body, out);
}

void write_router_advertisement(const IpEnds& ends, const RouterAdvertisement& told, Bytes& out) {
  Bytes body;
  Writer(body).u8(64).u8(0).u16(told.lifetime_s).u32(0).u32(0);
  add_mac_option(kSourceMac, told.mac, body);
  Writer(body).u8(kMtu).u8(1).u16(0).u32(told.mtu);
  for (const IpPrefix& prefix : told.prefixes) {
    constexpr std::uint8_t kOnLink = 0x80, kMakesAddresses = 0x40;
    const auto flags =
        static_cast<std::uint8_t>(kOnLink | (prefix.length == 64 ? kMakesAddresses : 0));
    Writer(body).u8(kPrefix).u8(4).u8(prefix.length).u8(flags).u32(kValid).u32(kPreferred).u32(0);
    add_ip(prefix.network().address, body);
  }
  if (!told.dns.empty()) {
    const auto length = static_cast<std::uint8_t>(1 + 2 * told.dns.size());
    Writer(body).u8(kDns).u8(length).u16(0).u32(told.lifetime_s);
    for (const Ip& server : told.dns) add_ip(server, body);
  }
  write_message(ends, kRouterAdvertisement, body, out);
}

}  // namespace godwit::net
