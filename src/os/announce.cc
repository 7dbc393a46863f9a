#include "os/announce.hh"

#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "os/fd.hh"

namespace godwit::os {
namespace {

using Mac = std::array<std::byte, 6>;

constexpr Mac kBroadcast{std::byte{0xff}, std::byte{0xff}, std::byte{0xff},
                         std::byte{0xff}, std::byte{0xff}, std::byte{0xff}};
// Of ff02::1, all nodes (RFC 2464, 7).
constexpr Mac kAllNodes{std::byte{0x33}, std::byte{0x33}, std::byte{0},
                        std::byte{0},    std::byte{0},    std::byte{1}};

void ethernet(Writer& to, const Mac& destination, const Mac& source, std::uint16_t type) {
  to.bytes(destination).bytes(source).u16(type);
}

// A request of ourselves for ourselves.
Bytes arp_announcement(const Mac& mac, const Ip& address) {
  Bytes frame;
  Writer to(frame);
  ethernet(to, kBroadcast, mac, ETHERTYPE_ARP);
  to.u16(1).u16(ETHERTYPE_IP).u8(6).u8(4).u16(1);
  to.bytes(mac).u32(address.as4()).bytes(Mac{}).u32(address.as4());
  return frame;
}

// RFC 1071, over what has an even length.
std::uint16_t checksum(BytesView bytes, std::uint32_t sum) {
  for (std::size_t at = 0; at < bytes.size(); at += 2) {
    sum += from_big_endian<std::uint16_t>(&bytes[at]);
  }
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

Bytes neighbour_advertisement(const Mac& mac, const Ip& address) {
  constexpr std::uint8_t kIcmp6 = 58, kAdvertisement = 136, kTargetMac = 2, kHops = 255;
  constexpr std::uint32_t kOverrides = 0x20000000;
  constexpr Ip kAll{0xff02'0000'0000'0000, 1};
  constexpr std::uint16_t kLength = 32;
  Bytes frame;
  Writer to(frame);
  ethernet(to, kAllNodes, mac, ETHERTYPE_IPV6);
  to.u32(0x60000000).u16(kLength).u8(kIcmp6).u8(kHops);
  const std::size_t addresses = frame.size();
  to.u64(address.high).u64(address.low).u64(kAll.high).u64(kAll.low);
  const std::size_t message = frame.size();
  to.u8(kAdvertisement).u8(0).u16(0).u32(kOverrides).u64(address.high).u64(address.low);
  to.u8(kTargetMac).u8(1).bytes(mac);
  // The pseudo header: both addresses, length and protocol.
  const auto sum = checksum(BytesView(frame).subspan(addresses), kLength + kIcmp6);
  to_big_endian(sum, &frame[message + 2]);
  return frame;
}

}  // namespace

Result<> announce(const std::string& interface, const Ip& address) {
  const std::string attempt = fmt::format("announce {} at {}", address.text(), interface);
  const Fd socket(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
  ifreq request{};
  interface.copy(request.ifr_name, IFNAMSIZ - 1);
  if (!socket || ::ioctl(socket.number(), SIOCGIFHWADDR, &request) < 0) {
    return fail("{}", errno_text(attempt));
  }
  Mac mac;
  std::memcpy(mac.data(), request.ifr_hwaddr.sa_data, mac.size());
  const Bytes frame =
      address.is4() ? arp_announcement(mac, address) : neighbour_advertisement(mac, address);
  sockaddr_ll to{};
  to.sll_family = AF_PACKET;
  to.sll_ifindex = static_cast<int>(::if_nametoindex(interface.c_str()));
  const auto sent = ::sendto(socket.number(), frame.data(), frame.size(), 0,
                             reinterpret_cast<const sockaddr*>(&to), sizeof to);
  if (sent < 0) return fail("{}", errno_text(attempt));
  return {};
}

}  // namespace godwit::os
