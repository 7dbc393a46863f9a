#include "net/arp.hh"

namespace godwit::net {
namespace {

constexpr std::uint16_t kEthernet = 1, kRequest = 1, kReply = 2;
constexpr std::size_t kLeastEthernet = 60;  // without the check sequence

}  // namespace

std::optional<Arp> read_arp(BytesView frame) {
  if (frame.size() < kPayloadAt) return std::nullopt;
  Reader reader(frame.subspan(kPayloadAt));
  const bool is_ip4 =
      reader.u16() == kEthernet && reader.u16() == kTypeIp4 && reader.u8() == 6 && reader.u8() == 4;
  const std::uint16_t operation = reader.u16();
  const BytesView body = reader.bytes(20);
  if (!is_ip4 || !reader.ok() || (operation != kRequest && operation != kReply)) {
    return std::nullopt;
  }
  return Arp{.is_request = operation == kRequest,
             .sender_mac = mac_at(&body[0]),
             .sender = Ip::at4(&body[6]),
             .target_mac = mac_at(&body[10]),
             .target = Ip::at4(&body[16])};
}

void write_arp(const Arp& arp, Mac destination, Mac source, Bytes& out) {
  write_ethernet(destination, source, kTypeArp, out);
  Writer writer(out);
  writer.u16(kEthernet).u16(kTypeIp4).u8(6).u8(4).u16(arp.is_request ? kRequest : kReply);
  append_mac(arp.sender_mac, out);
  writer.u32(arp.sender.as4());
  append_mac(arp.target_mac, out);
  writer.u32(arp.target.as4());
  out.resize(wire::kVnetBytes + kLeastEthernet);
}

void write_arp_answer(const Arp& request, Mac mac, Mac source, Bytes& out) {
  write_arp({.is_request = false,
             .sender_mac = mac,
             .sender = request.target,
             .target_mac = request.sender_mac,
             .target = request.sender},
            request.sender_mac, source, out);
}

}  // namespace godwit::net
