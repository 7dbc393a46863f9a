#pragma once
// An Ethernet address (IEEE 802, 48 bits) as a value.
#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace godwit::os {

struct MacAddress {
  std::array<std::uint8_t, 6> octets{};

  auto operator<=>(const MacAddress&) const = default;
  static std::optional<MacAddress> parse(std::string_view text);  // "52:54:00:12:34:56"
  std::string text() const;
  // Unicast and locally administered, from the kernel's random bytes.
  static MacAddress random();
};

}  // namespace godwit::os
