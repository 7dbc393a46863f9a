#pragma once
// Longest-prefix match for IPv4 and IPv6: what one number stands for which destination. Made once
// of all prefixes, as ranges that do not overlap, each of one value: a search in them is a search
// among numbers. IPv4 has an index of its first 16 bits, so that some steps are left of it.
#include <array>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "base/ip.hh"

namespace godwit::net {

class RouteTable final {
 public:
  using Value = std::uint32_t;
  static constexpr Value kNone = ~Value{0};

  RouteTable() = default;
  // Of equal prefixes the last counts. No value is kNone.
  explicit RouteTable(const std::vector<std::pair<IpPrefix, Value>>& routes);

  // kNone: no prefix has it.
  Value find(Ip destination) const {
    return destination.is4() ? find4(destination.as4()) : find6(destination);
  }

 private:
  Value find4(std::uint32_t destination) const;
  Value find6(Ip destination) const;

  // Where a range begins, and its value; the first begins at zero.
  std::vector<std::uint32_t> begins4_{0};
  std::vector<Value> values4_{kNone};
  std::vector<std::uint32_t> index4_{};  // by the first 16 bits: ranges that begin at or before
  std::vector<Ip> begins6_{Ip{}};
  std::vector<Value> values6_{kNone};
};

}  // namespace godwit::net
