#include "os/mac.hh"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>

#include "os/random.hh"

namespace godwit::os {

std::optional<MacAddress> MacAddress::parse(std::string_view text) {
  MacAddress mac;
  constexpr std::size_t kLength = 17;  // six pairs of digits, five colons
  if (text.size() != kLength) return std::nullopt;
  for (std::size_t i = 0; i < mac.octets.size(); ++i) {
    const char* at = text.data() + 3 * i;
    const auto [end, error] = std::from_chars(at, at + 2, mac.octets[i], 16);
    if (error != std::errc{} || end != at + 2) return std::nullopt;
    if (i + 1 < mac.octets.size() && *end != ':') return std::nullopt;
  }
  return mac;
}

std::string MacAddress::text() const { return fmt::format("{:02x}", fmt::join(octets, ":")); }

MacAddress MacAddress::random() {
  MacAddress mac;
  fill_random(std::as_writable_bytes(std::span(mac.octets)));
  constexpr std::uint8_t kMulticast = 0x01;
  constexpr std::uint8_t kLocal = 0x02;
  mac.octets[0] = static_cast<std::uint8_t>((mac.octets[0] | kLocal) & ~kMulticast);
  return mac;
}

}  // namespace godwit::os
