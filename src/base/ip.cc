#include "base/ip.hh"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <charconv>

namespace godwit {
namespace {

// Of the 128, those that a prefix's network has.
Ip mask_of(Ip address, std::uint8_t length) {
  const unsigned bits = length + (address.is4() ? 96U : 0U);
  const auto ones = [](unsigned count) {
    return count == 0 ? 0 : ~std::uint64_t{0} << (64 - std::min(count, 64U));
  };
  return {ones(std::min(bits, 64U)), ones(bits - std::min(bits, 64U))};
}

}  // namespace

void Ip::write(std::byte* at) const {
  if (is4()) return to_big_endian(as4(), at);
  to_big_endian(high, at);
  to_big_endian(low, at + 8);
}

std::string Ip::text() const {
  std::array<std::byte, 16> bytes{};
  std::array<char, INET6_ADDRSTRLEN> text{};
  write(bytes.data());
  inet_ntop(is4() ? AF_INET : AF_INET6, bytes.data(), text.data(), text.size());
  return text.data();
}

Result<Ip> parse_ip(std::string_view text) {
  const std::string whole(text);
  std::array<std::byte, 16> bytes{};
  if (inet_pton(AF_INET, whole.c_str(), bytes.data()) == 1) return Ip::at4(bytes.data());
  if (inet_pton(AF_INET6, whole.c_str(), bytes.data()) == 1) return Ip::at6(bytes.data());
  return fail("'{}' is no IP address, like 10.7.0.1 or fd00::1", text);
}

bool IpPrefix::contains(Ip ip) const {
  const Ip mask = mask_of(address, length);
  return ip.is4() == address.is4() && ((ip.high ^ address.high) & mask.high) == 0 &&
         ((ip.low ^ address.low) & mask.low) == 0;
}

IpPrefix IpPrefix::network() const {
  const Ip mask = mask_of(address, length);
  return {{address.high & mask.high, address.low & mask.low}, length};
}

std::string IpPrefix::text() const { return address.text() + "/" + std::to_string(length); }

Result<IpPrefix> parse_ip_prefix(std::string_view text) {
  const std::size_t slash = text.find('/');
  const auto address = parse_ip(text.substr(0, slash));
  if (!address) return fail("'{}' is no network, like 10.7.0.0/24 or fd00::/64", text);
  const unsigned most = address->is4() ? 32 : 128;
  if (slash == std::string_view::npos) {
    return IpPrefix{*address, static_cast<std::uint8_t>(most)};
  }
  unsigned length = 0;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data() + slash + 1, end, length);
  if (parsed.ec != std::errc{} || parsed.ptr != end || length > most) {
    return fail("'{}' has no length from 0 to {} behind its '/'", text, most);
  }
  return IpPrefix{*address, static_cast<std::uint8_t>(length)};
}

}  // namespace godwit
