#include "lab/too_big.hh"

#include "lab/link_quality.hh"

namespace godwit::lab {
namespace {

constexpr std::size_t kIpv4Header = 20;
constexpr std::size_t kIpv6Header = 40;
constexpr std::size_t kIcmpHeader = 8;
constexpr std::size_t kQuote4 = 548;   // RFC 1812 4.3.2.3: the reply is at most 576 bytes
constexpr std::size_t kQuote6 = 1232;  // RFC 4443 2.4 (c): the reply fits IPv6's minimum mtu, 1280
constexpr std::uint8_t kIcmp = 1;
constexpr unsigned kEcho = 8;
constexpr unsigned kEchoReply = 0;
constexpr std::uint8_t kIcmp6 = 58;
constexpr unsigned kFirstIcmp6Query = 128;  // below are errors (RFC 4443 2.1)
constexpr std::uint8_t kHops = 64;

std::uint32_t sum_of(BytesView bytes) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    sum += std::to_integer<std::uint32_t>(bytes[i]) << (i % 2 == 0 ? 8 : 0);
  }
  return sum;
}

std::uint16_t folded(std::uint32_t sum) {  // RFC 1071
  while (sum >> 16U != 0) sum = (sum & 0xffffU) + (sum >> 16U);
  return static_cast<std::uint16_t>(~sum);
}

void ethernet_reply(Writer& out, BytesView frame) {
  out.bytes(frame.subspan(6, 6)).bytes(frame.first(6)).bytes(frame.subspan(12, 2));
}

bool may_answer4(BytesView packet) {
  if (packet.size() < kIpv4Header) return false;
  const auto at = [&](std::size_t i) { return std::to_integer<unsigned>(packet[i]); };
  const bool do_not_fragment = (at(6) & 0x40U) != 0;
  const bool first_fragment = ((at(6) & 0x1fU) | at(7)) == 0;
  const bool unicast = at(12) < 224 && at(16) < 224;
  const std::size_t payload = (at(0) & 0xfU) * 4U;
  const bool icmp_error = at(9) == kIcmp && packet.size() > payload && at(payload) != kEcho &&
                          at(payload) != kEchoReply;
  return at(0) >> 4U == 4 && do_not_fragment && first_fragment && unicast && !icmp_error;
}

Bytes reply4(BytesView frame, std::uint16_t mtu, const Ipv4Bytes& from) {
  const BytesView packet = frame.subspan(kEthernetHeader);
  if (!may_answer4(packet)) return {};
  const BytesView quote = packet.first(std::min(packet.size(), kQuote4));
  Bytes reply;
  Writer out(reply);
  ethernet_reply(out, frame);
  out.u16(0x4500).u16(static_cast<std::uint16_t>(kIpv4Header + kIcmpHeader + quote.size()));
  out.u32(0).u8(kHops).u8(kIcmp).u16(0).bytes(from).bytes(packet.subspan(12, 4));
  out.u8(3).u8(4).u16(0).u16(0).u16(mtu).bytes(quote);  // destination unreachable, code 4
  const MutableBytes ip = MutableBytes(reply).subspan(kEthernetHeader);
  to_big_endian(folded(sum_of(ip.first(kIpv4Header))), ip.data() + 10);
  to_big_endian(folded(sum_of(ip.subspan(kIpv4Header))), ip.data() + kIpv4Header + 2);
  return reply;
}

Bytes reply6(BytesView frame, std::uint16_t mtu, const Ipv6Bytes& from) {
  const BytesView packet = frame.subspan(kEthernetHeader);
  if (packet.size() < kIpv6Header) return {};
  const auto multicast = std::byte{0xff};
  if (packet[8] == multicast || packet[24] == multicast) return {};
  const bool icmp = std::to_integer<unsigned>(packet[6]) == kIcmp6 && packet.size() > kIpv6Header;
  if (icmp && std::to_integer<unsigned>(packet[kIpv6Header]) < kFirstIcmp6Query) return {};
  const BytesView quote = packet.first(std::min(packet.size(), kQuote6));
  const auto length = static_cast<std::uint16_t>(kIcmpHeader + quote.size());
  Bytes reply;
  Writer out(reply);
  ethernet_reply(out, frame);
  out.u32(0x60000000).u16(length).u8(kIcmp6).u8(kHops).bytes(from).bytes(packet.subspan(8, 16));
  out.u8(2).u8(0).u16(0).u32(mtu).bytes(quote);  // packet too big
  const MutableBytes ip = MutableBytes(reply).subspan(kEthernetHeader);
  // The pseudo header (RFC 8200 8.1): both addresses, the length, the protocol.
  const std::uint32_t sum =
      sum_of(ip.subspan(8, 32)) + length + kIcmp6 + sum_of(ip.subspan(kIpv6Header));
  to_big_endian(folded(sum), ip.data() + kIpv6Header + 2);
  return reply;
}

}  // namespace

Bytes too_big_reply(BytesView frame, std::uint16_t mtu, const Ipv4Bytes& from4,
                    const Ipv6Bytes& from6) {
  if (frame.size() <= kEthernetHeader) return {};
  const auto type = from_big_endian<std::uint16_t>(frame.data() + 12);
  if (type == 0x0800) return reply4(frame, mtu, from4);
  if (type == 0x86dd) return reply6(frame, mtu, from6);
  return {};
}

}  // namespace godwit::lab
