#pragma once
// 128-bit identifiers, one type each so that a port cannot be passed for a wire. They are made from
// random bytes at the edge (os/random.hh); the core only compares and prints them.
#include <algorithm>
#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.hh"

namespace godwit {

template <class Tag>
struct Id {
  std::array<std::byte, 16> bytes{};

  auto operator<=>(const Id&) const = default;
  bool is_zero() const { return *this == Id{}; }
  std::string text() const { return to_hex(bytes); }  // 32 hex digits
  static std::optional<Id> parse(std::string_view text) {
    const Bytes raw = from_hex(text);
    if (raw.size() != 16) return std::nullopt;
    return from(raw);
  }
  static Id from(BytesView sixteen) {
    Id id;
    std::copy_n(sixteen.begin(), 16, id.bytes.begin());
    return id;
  }
};

using PortId = Id<struct PortTag>;
using WireId = Id<struct WireTag>;
using VmId = Id<struct VmTag>;
using ComponentId = Id<struct ComponentTag>;
using MigrationId = Id<struct MigrationTag>;
using HostId = Id<struct HostTag>;

// Grows by one with each move of a port or guest; the higher wins, a lower one is refused.
using Epoch = std::uint32_t;

// Names of hosts, sites, vms, ports and tenants: 1 to 63 of [a-z0-9-], a letter or digit at both
// ends (RFC 1123 label in lower case).
bool is_valid_name(std::string_view name);

}  // namespace godwit

template <class Tag>
struct std::hash<godwit::Id<Tag>> {
  std::size_t operator()(const godwit::Id<Tag>& id) const noexcept {
    std::size_t value = 0;
    std::memcpy(&value, id.bytes.data(), sizeof value);
    return value;  // random bytes already
  }
};
