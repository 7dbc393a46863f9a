#include "net/rewrite.hh"

namespace godwit::net {
namespace {

constexpr std::size_t kIp4ChecksumAt = 10;
constexpr std::size_t kIcmpChecksumAt = 2;
constexpr std::uint8_t kDccp = 33, kUdpLite = 136;

struct ChecksumField {
  std::size_t at = 0;  // zero: there is none here
  bool covers_addresses = true;
  bool may_lack = false;  // zero says so, and is never a sum
};

ChecksumField field_of(const IpPacket& packet) {
  switch (packet.protocol) {
    case kTcp:
      return {.at = 16};
    case kUdp:
      return {.at = 6, .may_lack = true};
    case kDccp:
    case kUdpLite:
      return {.at = 6};
    case kIcmp:
      return {.at = kIcmpChecksumAt, .covers_addresses = false};
    case kIcmp6:
      return {.at = kIcmpChecksumAt};
    default:
      return {};
  }
}

// Whether a field still waits for what is to be summed up, and holds only the pseudo-header's sum.
bool is_seed(BytesView frame, const IpPacket& packet, std::size_t field_at) {
  if ((frame[0] & std::byte{wire::kVnetNeedsChecksum}) == std::byte{0}) return false;
  const auto vnet = wire::read_vnet(frame.first<wire::kVnetBytes>());
  return wire::kVnetBytes + vnet.csum_start == packet.l4 &&
         packet.l4 + vnet.csum_offset == field_at;
}

std::size_t address_at(const IpPacket& packet, Side side) {
  const std::size_t first = packet.l3 + (packet.is_ip4 ? 12 : 8);
  return first + (side == Side::source ? 0 : packet.is_ip4 ? 4 : 16);
}

void mend_checksum(MutableBytes frame, const IpPacket& packet, const ChecksumChange& addresses,
                   const ChecksumChange& port) {
  const ChecksumField field = field_of(packet);
  if (field.at == 0 || !packet.has_l4(frame, field.at + 2)) return;
  std::byte* const at = &frame[packet.l4 + field.at];
  if (is_seed(frame, packet, packet.l4 + field.at)) {
    if (field.covers_addresses) addresses.apply_to_seed(at);
    return;
  }
  const auto is_zero = [at] { return from_big_endian<std::uint16_t>(at) == 0; };
  if (field.may_lack && is_zero()) return;
  if (field.covers_addresses) addresses.apply(at);
  port.apply(at);
  if (field.may_lack && is_zero()) to_big_endian(std::uint16_t{0xffff}, at);
}

}  // namespace

void rewrite(MutableBytes frame, IpPacket& packet, Side side, Endpoint to) {
  ChecksumChange addresses, port;
  Ip& ip = side == Side::source ? packet.source : packet.destination;
  if (ip != to.ip) {
    addresses.replace(ip, to.ip);
    to.ip.write(&frame[address_at(packet, side)]);
    if (packet.is_ip4) addresses.apply(&frame[packet.l3 + kIp4ChecksumAt]);
    ip = to.ip;
  }
  if (const std::size_t at = port_at(frame, packet, side); at != 0) {
    port.replace(from_big_endian<std::uint16_t>(&frame[at]), to.port);
    to_big_endian(to.port, &frame[at]);
  }
  mend_checksum(frame, packet, addresses, port);
}

// What is quoted is written within the packet that quotes it; then all of that is summed up anew:
// it was right before (read_packet()).
void rewrite_error(MutableBytes frame, IpPacket& packet, IpPacket& quoted, const ErrorRewrite& to) {
  const MutableBytes whole = frame.first(packet.end);
  rewrite(whole, quoted, Side::source, source_of(to.quoted));
  rewrite(whole, quoted, Side::destination, destination_of(to.quoted));
  rewrite(frame, packet, Side::source, {.ip = to.source});
  rewrite(frame, packet, Side::destination, {.ip = to.destination});
  const std::size_t field = packet.l4 + kIcmpChecksumAt;
  if (is_seed(frame, packet, field)) return;
  const std::size_t length = packet.end - packet.l4;
  const std::uint64_t pseudo =
      packet.is_ip4 ? 0 : pseudo_sum(packet.source, packet.destination, packet.protocol, length);
  to_big_endian(std::uint16_t{0}, &frame[field]);
  to_big_endian(checksum_of(frame.subspan(packet.l4, length), pseudo), &frame[field]);
}

}  // namespace godwit::net
