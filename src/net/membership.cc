#include "net/membership.hh"

#include "wire/vnet.hh"

namespace godwit::net {
namespace {

constexpr std::uint16_t kIp4 = 0x0800, kIp6 = 0x86dd, kVlan = 0x8100, kServiceVlan = 0x88a8;
constexpr std::uint8_t kIgmp = 2, kHopByHop = 0, kIcmp6 = 58;
constexpr std::size_t kMostGroups = 256;  // of one report

// IGMP and MLD types, and record types of version 3 and 2.
enum Igmp : std::uint8_t {
  kQuery = 0x11,
  kReport1 = 0x12,
  kReport2 = 0x16,
  kLeave = 0x17,
  kReport3 = 0x22
};
enum Mld : std::uint8_t { kMldQuery = 130, kMldReport1 = 131, kMldDone = 132, kMldReport2 = 143 };
enum Record : std::uint8_t { kIsInclude = 1, kIsExclude, kToInclude, kToExclude, kAllow, kBlock };

Mac ip4_group(std::uint32_t address) { return 0x01005e000000 | (address & 0x7fffff); }
Mac ip6_group(BytesView address) {
  return 0x333300000000 | from_big_endian<std::uint32_t>(&address[12]);
}

// A host that wants nothing of a group says that it wants to include no source of it.
std::optional<bool> joins(std::uint8_t record, std::uint16_t sources) {
  switch (record) {
    case kIsInclude:
    case kToInclude:
      return sources > 0;
    case kIsExclude:
    case kToExclude:
    case kAllow:
      return true;
    default:
      return std::nullopt;
  }
}

// The records of IGMPv3 and MLDv2 differ in their addresses' length only.
std::optional<Membership> read_records(Reader reader, std::size_t address_bytes) {
  Membership said;
  reader.u16();
  for (std::size_t left = std::min<std::size_t>(reader.u16(), kMostGroups); left > 0; --left) {
    const std::uint8_t type = reader.u8();
    const std::size_t auxiliary = reader.u8() * std::size_t{4};
    const std::uint16_t sources = reader.u16();
    const BytesView group = reader.bytes(address_bytes);
    reader.bytes(sources * address_bytes + auxiliary);
    if (!reader.ok()) return std::nullopt;
    const auto wants = joins(type, sources);
    if (!wants) continue;
    const bool is_ip4 = address_bytes == 4;
    said.groups.push_back(
        {.mac = is_ip4 ? ip4_group(from_big_endian<std::uint32_t>(group.data())) : ip6_group(group),
         .joins = *wants});
  }
  return reader.ok() ? std::optional(said) : std::nullopt;
}

std::optional<Membership> read_igmp(Reader reader) {
  const std::uint8_t type = reader.u8();
  reader.bytes(3);  // time, checksum
  if (type == kReport3) return read_records(reader, 4);
  const Mac group = ip4_group(reader.u32());
  if (!reader.ok()) return std::nullopt;
  if (type == kQuery) return Membership{.is_query = true};
  if (type == kReport1 || type == kReport2) return Membership{.groups = {{group, true}}};
  if (type == kLeave) return Membership{.groups = {{group, false}}};
  return std::nullopt;
}

std::optional<Membership> read_mld(Reader reader) {
  const std::uint8_t type = reader.u8();
  reader.bytes(3);  // code, checksum
  if (type == kMldReport2) return read_records(reader, 16);
  reader.bytes(4);  // time
  const BytesView group = reader.bytes(16);
  if (!reader.ok()) return std::nullopt;
  if (type == kMldQuery) return Membership{.is_query = true};
  if (type == kMldReport1) return Membership{.groups = {{ip6_group(group), true}}};
  if (type == kMldDone) return Membership{.groups = {{ip6_group(group), false}}};
  return std::nullopt;
}

std::optional<Membership> read_ip4(BytesView packet) {
  if (packet.size() < 20 || packet[9] != std::byte{kIgmp}) return std::nullopt;
  const std::size_t header = std::to_integer<std::size_t>(packet[0] & std::byte{0x0f}) * 4;
  const bool is_fragment = (from_big_endian<std::uint16_t>(&packet[6]) & 0x3fff) != 0;
  const std::size_t length = from_big_endian<std::uint16_t>(&packet[2]);
  if (header < 20 || length < header || length > packet.size() || is_fragment) return std::nullopt;
  return read_igmp(Reader(packet.subspan(header, length - header)));
}

// MLD comes behind a hop-by-hop header, with a router alert.
std::optional<Membership> read_ip6(BytesView packet) {
  if (packet.size() < 48 || packet[6] != std::byte{kHopByHop}) return std::nullopt;
  const std::size_t end = 40 + std::size_t{from_big_endian<std::uint16_t>(&packet[4])};
  const std::size_t options = (std::to_integer<std::size_t>(packet[41]) + 1) * 8;
  if (packet[40] != std::byte{kIcmp6} || end > packet.size() || 40 + options > end) {
    return std::nullopt;
  }
  return read_mld(Reader(packet.subspan(40 + options, end - 40 - options)));
}

}  // namespace

std::optional<Membership> membership_of(BytesView frame) {
  Reader reader(frame);
  reader.bytes(wire::kVnetBytes + 12);
  std::uint16_t type = reader.u16();
  while (type == kVlan || type == kServiceVlan) {
    reader.u16();
    type = reader.u16();
  }
  if (type == kIp4) return read_ip4(reader.rest());
  if (type == kIp6) return read_ip6(reader.rest());
  return std::nullopt;
}

// 224.0.0.x; ff02::1 and solicited-node addresses, which neighbour discovery lives on.
bool is_for_all(Mac group) {
  if (group >> 24 == 0x01005e) return (group & 0xffff00) == 0;
  if (group >> 32 == 0x3333) return (group & 0xffffffff) == 1 || (group >> 24 & 0xff) == 0xff;
  return true;
}

}  // namespace godwit::net
