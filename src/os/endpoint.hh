#pragma once
// An IPv4 or IPv6 address with a port: a value, compared and hashed by content. An IPv4-mapped IPv6
// address (RFC 4291, 2.5.5.2) becomes IPv4 on the way in, so that a dual-stack socket and an IPv4
// one name a peer alike.
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hh"

namespace godwit::os {

struct Endpoint {
  // IPv4 fills the first four bytes, the rest are zero; network order.
  std::array<std::uint8_t, 16> address{};
  bool is_ipv6 = false;
  std::uint16_t port = 0;
  std::uint32_t scope = 0;  // interface index of a link-local IPv6 address, else 0

  auto operator<=>(const Endpoint&) const = default;

  // "10.0.0.1:4747", "[fd00::1]:4747"; without a port ("10.0.0.1", "fd00::1") the default is taken,
  // and refused if there is none. Numbers only; names go through resolve().
  static Result<Endpoint> parse(std::string_view text,
                                std::optional<std::uint16_t> default_port = std::nullopt);
  static Endpoint any_ipv4(std::uint16_t port) { return {.address = {}, .port = port}; }
  // Takes IPv4 peers too when bound by Listener or UdpSocket.
  static Endpoint any_ipv6(std::uint16_t port) {
    return {.address = {}, .is_ipv6 = true, .port = port};
  }
  static Endpoint loopback(std::uint16_t port) { return {.address = {127, 0, 0, 1}, .port = port}; }
  static Result<Endpoint> from_sockaddr(const sockaddr_storage& from);

  // Fills `to` and returns its length. For a socket of family AF_INET6 an IPv4 address is mapped.
  socklen_t to_sockaddr(sockaddr_storage& to, int family) const;
  int family() const { return is_ipv6 ? AF_INET6 : AF_INET; }
  bool is_any() const { return address == std::array<std::uint8_t, 16>{}; }
  std::string address_text() const;  // "10.0.0.1", "fd00::1"
  std::string text() const;          // "10.0.0.1:4747", "[fd00::1]:4747"
};

// "host:4747", "host", "[fd00::1]:4747" -> {host, port}; for addresses written by people.
struct HostPort {
  std::string host;
  std::uint16_t port = 0;
};
Result<HostPort> parse_host_port(std::string_view text, std::optional<std::uint16_t> default_port);

// All addresses of a name, in the resolver's order (RFC 6724), without repetition. Blocks; numeric
// hosts do not.
Result<std::vector<Endpoint>> resolve(const std::string& host, std::uint16_t port);

}  // namespace godwit::os

template <>
struct std::hash<godwit::os::Endpoint> {
  std::size_t operator()(const godwit::os::Endpoint& endpoint) const noexcept;
};
