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

using List = std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)>;
List list_addresses() {
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) fail_setup("{}", errno_text("list the interfaces' addresses"));
  return {list, ::freeifaddrs};
}

std::optional<Ip> address_of(const ifaddrs& entry) {
  if (entry.ifa_addr == nullptr) return std::nullopt;
  if (entry.ifa_addr->sa_family == AF_INET) return Ip::at4(bytes_of(*entry.ifa_addr));
  if (entry.ifa_addr->sa_family == AF_INET6) return Ip::at6(bytes_of(*entry.ifa_addr));
  return std::nullopt;
}

std::optional<IpPrefix> network_of(const ifaddrs& entry) {
  const auto address = address_of(entry);
  if (!address || entry.ifa_netmask == nullptr) return std::nullopt;
  if ((entry.ifa_flags & IFF_UP) == 0 || (entry.ifa_flags & IFF_LOOPBACK) != 0) return std::nullopt;
  const std::byte* mask = bytes_of(*entry.ifa_netmask);
  int length = 0;
  for (std::size_t i = 0; i < address->size(); ++i) {
    length += std::popcount(std::to_integer<unsigned char>(mask[i]));
  }
  return IpPrefix{*address, static_cast<std::uint8_t>(length)}.network();
}

}  // namespace

std::optional<std::string> segment_of(const Ip& address) {
  const List list = list_addresses();
  const std::uint8_t alone = address.is4() ? 32 : 128;
  std::optional<std::string> longest;
  std::uint8_t length = 0;
  for (const ifaddrs* entry = list.get(); entry != nullptr; entry = entry->ifa_next) {
    const auto network = network_of(*entry);
    if (!network || network->length == alone || !network->contains(address)) continue;
    if (longest && network->length <= length) continue;
    longest = entry->ifa_name;
    length = network->length;
  }
  return longest;
}

bool is_own_address(const Ip& address) { return own_addresses().contains(address); }

std::set<Ip> own_addresses() {
  std::set<Ip> addresses;
  const List list = list_addresses();
  for (const ifaddrs* entry = list.get(); entry != nullptr; entry = entry->ifa_next) {
    if (const auto address = address_of(*entry)) addresses.insert(*address);
  }
  return addresses;
}

}  // namespace godwit::os
