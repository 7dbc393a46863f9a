#include "os/endpoint.hh"

#include <arpa/inet.h>
#include <netdb.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <span>

#include "base/check.hh"

namespace godwit::os {
namespace {

constexpr std::array<std::uint8_t, 12> kMappedPrefix{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

std::optional<std::uint16_t> parse_port(std::string_view text) {
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc{} || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return port;
}

}  // namespace

Result<HostPort> parse_host_port(std::string_view text, std::optional<std::uint16_t> default_port) {
  std::string_view host = text;
  std::optional<std::string_view> port;
  if (text.starts_with('[')) {
    const auto close = text.find(']');
    if (close == std::string_view::npos) return fail("address '{}': the ']' is missing", text);
    host = text.substr(1, close - 1);
    const auto rest = text.substr(close + 1);
    if (!rest.empty() && rest[0] != ':') return fail("address '{}': after ']' comes ':PORT'", text);
    if (!rest.empty()) port = rest.substr(1);
  } else if (std::ranges::count(text, ':') == 1) {  // more colons: a bare IPv6 address
    host = text.substr(0, text.find(':'));
    port = text.substr(text.find(':') + 1);
  }
  if (host.empty()) return fail("address '{}': the host is missing", text);
  const auto number = port ? parse_port(*port) : default_port;
  if (!number) {
    return port ? fail("address '{}': the port is not a number of 0 to 65535", text)
                : fail("address '{}': the port is missing, write HOST:PORT", text);
  }
  return HostPort{std::string(host), *number};
}

Result<Endpoint> Endpoint::parse(std::string_view text, std::optional<std::uint16_t> default_port) {
  const auto parts = parse_host_port(text, default_port);
  if (!parts) return std::unexpected(parts.error());
  Endpoint endpoint{.address = {}, .port = parts->port};
  if (::inet_pton(AF_INET, parts->host.c_str(), endpoint.address.data()) == 1) return endpoint;
  sockaddr_storage raw{};
  auto& v6 = reinterpret_cast<sockaddr_in6&>(raw);
  if (::inet_pton(AF_INET6, parts->host.c_str(), &v6.sin6_addr) != 1) {
    return fail("'{}' is not an IPv4 or IPv6 address", parts->host);
  }
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(parts->port);
  return from_sockaddr(raw);
}

Result<Endpoint> Endpoint::from_sockaddr(const sockaddr_storage& from) {
  Endpoint endpoint;
  if (from.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(from);
    std::memcpy(endpoint.address.data(), &v4.sin_addr, sizeof v4.sin_addr);
    endpoint.port = ntohs(v4.sin_port);
    return endpoint;
  }
  if (from.ss_family != AF_INET6) return fail("address family {} is not IP", from.ss_family);
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(from);
  std::memcpy(endpoint.address.data(), &v6.sin6_addr, sizeof v6.sin6_addr);
  endpoint.port = ntohs(v6.sin6_port);
  if (std::ranges::equal(kMappedPrefix, std::span(endpoint.address).first<12>())) {
    std::ranges::copy(std::span(endpoint.address).last<4>(), endpoint.address.begin());
    std::ranges::fill(std::span(endpoint.address).subspan(4), std::uint8_t{0});
    return endpoint;
  }
  endpoint.is_ipv6 = true;
  endpoint.scope = v6.sin6_scope_id;
  return endpoint;
}

socklen_t Endpoint::to_sockaddr(sockaddr_storage& to, int family) const {
  CHECK(family == AF_INET6 || !is_ipv6, "an IPv6 address does not fit an IPv4 socket");
  to = {};
  if (family == AF_INET) {
    auto& v4 = reinterpret_cast<sockaddr_in&>(to);
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    std::memcpy(&v4.sin_addr, address.data(), sizeof v4.sin_addr);
    return sizeof v4;
  }
  auto& v6 = reinterpret_cast<sockaddr_in6&>(to);
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(port);
  v6.sin6_scope_id = scope;
  auto* bytes = v6.sin6_addr.s6_addr;
  if (is_ipv6) {
    std::ranges::copy(address, bytes);
  } else {
    std::ranges::copy(kMappedPrefix, bytes);
    std::ranges::copy(std::span(address).first<4>(), bytes + kMappedPrefix.size());
  }
  return sizeof v6;
}

std::string Endpoint::address_text() const {
  std::array<char, INET6_ADDRSTRLEN> text{};
  CHECK(::inet_ntop(family(), address.data(), text.data(), text.size()) != nullptr);
  return text.data();
}

std::string Endpoint::text() const {
  return is_ipv6 ? fmt::format("[{}]:{}", address_text(), port)
                 : fmt::format("{}:{}", address_text(), port);
}

Result<std::vector<Endpoint>> resolve(const std::string& host, std::uint16_t port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;  // else each address comes once per socket type
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (error != 0) return fail("resolve '{}': {}", host, ::gai_strerror(error));
  std::vector<Endpoint> endpoints;
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    sockaddr_storage raw{};
    std::memcpy(&raw, at->ai_addr, std::min<std::size_t>(at->ai_addrlen, sizeof raw));
    const auto endpoint = Endpoint::from_sockaddr(raw);
    if (endpoint && std::ranges::find(endpoints, *endpoint) == endpoints.end())
      endpoints.push_back(*endpoint);
  }
  ::freeaddrinfo(found);
  if (endpoints.empty()) return fail("resolve '{}': it has no IP address", host);
  return endpoints;
}

}  // namespace godwit::os

std::size_t std::hash<godwit::os::Endpoint>::operator()(
    const godwit::os::Endpoint& endpoint) const noexcept {
  const auto* bytes = reinterpret_cast<const char*>(endpoint.address.data());
  return std::hash<std::string_view>{}({bytes, endpoint.address.size()}) ^
         (std::size_t{endpoint.port} << 17) ^ (std::size_t{endpoint.scope} << 40);
}
