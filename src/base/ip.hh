#pragma once
// IP addresses and prefixes as values. An IPv4 address is kept as ::ffff:a.b.c.d (RFC 4291,
// 2.5.5.2), so that one type compares and hashes both; it is printed as people write it.
#include <compare>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/bytes.hh"
#include "base/result.hh"

namespace godwit {

struct Ip {
  std::uint64_t high = 0, low = 0;  // in the order of the address's bits

  auto operator<=>(const Ip&) const = default;
  static constexpr Ip of4(std::uint32_t address) { return {0, 0xffff'0000'0000U | address}; }
  static constexpr Ip at4(const std::byte* at) { return of4(from_big_endian<std::uint32_t>(at)); }
  static constexpr Ip at6(const std::byte* at) {
    return {from_big_endian<std::uint64_t>(at), from_big_endian<std::uint64_t>(at + 8)};
  }
  constexpr bool is4() const { return high == 0 && low >> 32 == 0xffff; }
  constexpr std::uint32_t as4() const { return static_cast<std::uint32_t>(low); }
  // 4 or 16 bytes.
  constexpr std::size_t size() const { return is4() ? 4 : 16; }
  void write(std::byte* at) const;

  bool is_unspecified() const { return low == (is4() ? 0xffff'0000'0000U : 0U) && high == 0; }
  bool is_loopback() const { return is4() ? as4() >> 24 == 127 : high == 0 && low == 1; }
  bool is_multicast() const { return is4() ? as4() >> 28 == 0xe : high >> 56 == 0xff; }
  // RFC 3927, RFC 4291 2.5.6: never forwarded.
  bool is_link_local() const { return is4() ? as4() >> 16 == 0xa9fe : high >> 54 == 0x3fa; }
  std::string text() const;
};
// "10.7.0.1", "fd00::1"
Result<Ip> parse_ip(std::string_view text);

// An address with the length of its network, as "10.7.0.1/24" has both; a network has no bits
// behind.
struct IpPrefix {
  Ip address{};
  std::uint8_t length = 0;  // 0 to 32, or to 128

  auto operator<=>(const IpPrefix&) const = default;
  bool contains(Ip ip) const;
  IpPrefix network() const;
  bool is_network() const { return *this == network(); }
  std::string text() const;
};
// An address without a length is one of itself.
Result<IpPrefix> parse_ip_prefix(std::string_view text);

}  // namespace godwit

template <>
struct std::hash<godwit::Ip> {
  std::size_t operator()(const godwit::Ip& ip) const noexcept {
    return (ip.high * 0x9e3779b97f4a7c15 ^ ip.low) * 0xff51afd7ed558ccd >> 7;
  }
};
