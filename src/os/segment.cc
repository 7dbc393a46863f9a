#include "os/segment.hh"

#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>

#include <bit>
#include <memory>

namespace godwit::os {
namespace {

const std::byte* bytes_of(const sockaddr& address) {
  if (address.sa_family == AF_INET) {
    return reinterpret_cast<const std::byte*>(
        &reinterpret_cast<const sockaddr_in&>(address).sin_addr);
  }
  return reinterpret_cast<const std::byte*>(
      &reinterpret_cast<const sockaddr_in6&>(address).sin6_addr);
}

std::optional<IpPrefix> network_of(const ifaddrs& entry) {
  if (entry.ifa_addr == nullptr || entry.ifa_netmask == nullptr) return std::nullopt;
  if ((entry.ifa_flags & IFF_UP) == 0 || (entry.ifa_flags & IFF_LOOPBACK) != 0) return std::nullopt;
  const bool is4 = entry.ifa_addr->sa_family == AF_INET;
  if (!is4 && entry.ifa_addr->sa_family != AF_INET6) return std::nullopt;
  const std::byte* mask = bytes_of(*entry.ifa_netmask);
  int length = 0;
  for (std::size_t i = 0; i < (is4 ? 4U : 16U); ++i) {
    length += std::popcount(std::to_integer<unsigned char>(mask[i]));
  }
  const Ip address = is4 ? Ip::at4(bytes_of(*entry.ifa_addr)) : Ip::at6(bytes_of(*entry.ifa_addr));
  return IpPrefix{address, static_cast<std::uint8_t>(length)}.network();
}

}  // namespace

std::optional<std::string> segment_of(const Ip& address) {
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) fail_setup("{}", errno_text("list the interfaces' addresses"));
  const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> owner(list, ::freeifaddrs);
  const std::uint8_t alone = address.is4() ? 32 : 128;
  std::optional<std::string> longest;
  std::uint8_t length = 0;
  for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
    const auto network = network_of(*entry);
    if (!network || network->length == alone || !network->contains(address)) continue;
    if (longest && network->length <= length) continue;
    longest = entry->ifa_name;
    length = network->length;
  }
  return longest;
}

}  // namespace godwit::os
