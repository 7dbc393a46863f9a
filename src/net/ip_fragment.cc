#include "net/ip_fragment.hh"

#include <algorithm>

namespace godwit::net {
namespace {

constexpr std::uint8_t kEndOfOptions = 0, kNoOperation = 1, kCopied = 0x80;

// RFC 791, 3.1: options that are not copied are of the first piece only, and become no-operations
// in the others: their length stays.
void clear_options(MutableBytes options) {
  for (std::size_t at = 0; at < options.size();) {
    const auto type = std::to_integer<std::uint8_t>(options[at]);
    if (type == kEndOfOptions) return;
    const std::size_t length =
        type == kNoOperation || at + 1 >= options.size()
            ? 1
            : std::clamp<std::size_t>(std::to_integer<std::size_t>(options[at + 1]), 2,
                                      options.size() - at);
    if ((type & kCopied) == 0) {
      std::fill_n(options.begin() + static_cast<std::ptrdiff_t>(at), length,
                  std::byte{kNoOperation});
    }
    at += length;
  }
}

}  // namespace

void finish_checksum(MutableBytes frame) {
  const auto header = frame.first<wire::kVnetBytes>();
  wire::VnetHeader vnet = wire::read_vnet(header);
  if ((vnet.flags & wire::kVnetNeedsChecksum) == 0) return;
  const std::size_t start = wire::kVnetBytes + vnet.csum_start;
  if (start + vnet.csum_offset + 2 > frame.size()) return;  // check_vnet() has seen to it
  const std::uint16_t sum = checksum_of(frame.subspan(start));
  to_big_endian(sum == 0 ? std::uint16_t{0xffff} : sum, &frame[start + vnet.csum_offset]);
  vnet = {};
  wire::write_vnet(vnet, header);
}

void fragment_ip4(BytesView frame, const IpPacket& packet, std::uint16_t mtu,
                  const std::function<void(BytesView)>& piece) {
  const std::size_t header = packet.l4 - packet.l3;
  const std::size_t step = (mtu - header) / 8 * 8;
  Bytes made;
  for (std::size_t at = packet.l4; at < packet.end; at += step) {
    const std::size_t bytes = std::min(step, packet.end - at);
    made.assign(frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(packet.l4));
    append(made, frame.subspan(at, bytes));
    const MutableBytes ip = MutableBytes(made).subspan(packet.l3, header);
    const bool has_more = packet.has_more || at + bytes < packet.end;
    const std::size_t offset = packet.fragment_offset + (at - packet.l4);
    to_big_endian(static_cast<std::uint16_t>(header + bytes), &ip[2]);
    to_big_endian(static_cast<std::uint16_t>(offset / 8 | (has_more ? 0x2000 : 0)), &ip[6]);
    if (at != packet.l4) clear_options(ip.subspan(kIp4Bytes));
    to_big_endian(std::uint16_t{0}, &ip[10]);
    to_big_endian(checksum_of(ip), &ip[10]);
    piece(made);
  }
}

}  // namespace godwit::net
