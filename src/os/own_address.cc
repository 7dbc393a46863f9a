#include "os/own_address.hh"

#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>
#include <memory>
#include <vector>

#include "os/endpoint.hh"
#include "os/fd.hh"

namespace godwit::os {
namespace {

struct Candidate {
  Endpoint endpoint;
  std::string interface;
};

Result<Endpoint> endpoint_of(const sockaddr* address, std::size_t length) {
  sockaddr_storage storage{};
  std::memcpy(&storage, address, length);
  return Endpoint::from_sockaddr(storage);
}

bool is_usable(const ifaddrs& entry) {
  return entry.ifa_addr != nullptr && (entry.ifa_flags & IFF_LOOPBACK) == 0 &&
         (entry.ifa_flags & IFF_UP) != 0 &&
         (entry.ifa_addr->sa_family == AF_INET || entry.ifa_addr->sa_family == AF_INET6);
}

std::vector<Candidate> candidates() {
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return {};
  const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> owner(list, ::freeifaddrs);
  std::vector<Candidate> found;
  for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
    if (!is_usable(*entry)) continue;
    const bool is_ipv6 = entry->ifa_addr->sa_family == AF_INET6;
    const auto length = is_ipv6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
    const auto endpoint = endpoint_of(entry->ifa_addr, length);
    if (endpoint && endpoint->scope == 0) found.push_back({*endpoint, entry->ifa_name});
  }
  return found;
}

// Nothing is sent: connecting a UDP socket only looks up the route and its source address. The
// destination is of the block for documentation (RFC 5737, RFC 3849): only a default route fits.
std::optional<Endpoint> source_by_route(const Endpoint& towards) {
  const Fd fd(::socket(towards.family(), SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_storage address{};
  socklen_t length = towards.to_sockaddr(address, towards.family());
  if (!fd || ::connect(fd.number(), reinterpret_cast<sockaddr*>(&address), length) != 0) {
    return std::nullopt;
  }
  length = sizeof address;
  if (::getsockname(fd.number(), reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    return std::nullopt;
  }
  const auto source = Endpoint::from_sockaddr(address);
  return source ? std::optional(*source) : std::nullopt;
}

}  // namespace

OwnAddress own_address() {
  const auto all = candidates();
  for (const char* towards : {"192.0.2.1", "2001:db8::1"}) {
    const auto source = source_by_route(*Endpoint::parse(towards, 9));
    if (!source) continue;
    for (const auto& each : all) {
      if (each.endpoint.address == source->address) {
        return {each.endpoint.address_text(), each.interface};
      }
    }
  }
  for (const bool is_ipv6 : {false, true}) {
    for (const auto& each : all) {
      if (each.endpoint.is_ipv6 == is_ipv6) return {each.endpoint.address_text(), each.interface};
    }
  }
  return {};
}

}  // namespace godwit::os
