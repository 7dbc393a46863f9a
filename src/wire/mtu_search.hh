#pragma once
// How large an IP packet one path carries: Datagram PLPMTUD (RFC 8899) without its datagrams. The
// owner sends what probe() asks for and says what was answered.
//
//   floor ──▶ SEARCHING ── nothing left to try ──▶ COMPLETE ── raise_after ──▶ SEARCHING
//                ▲                                     │
//                └── black_hole(): back to the floor ──┘
//
// Sizes that networks have are tried first: 1500 at once, then the largest allowed; below, the
// common ones, then by bisection to kStep.
#include <cstdint>
#include <optional>

#include "base/units.hh"

namespace godwit::wire {

class MtuSearch final {
 public:
  static constexpr int kTries = 3;            // MAX_PROBES of RFC 8899, 5.1.2
  static constexpr std::uint16_t kStep = 16;  // bytes: what is left when the search ends

  // `floor` is trusted without asking. IP packet sizes, as datagram.hh counts them.
  MtuSearch(std::uint16_t floor, std::uint16_t most, Nanoseconds raise_after)
      : floor_(floor),
        most_(most),
        raise_after_(raise_after),
        confirmed_(floor),
        too_big_(most + 1) {}

  std::uint16_t confirmed() const { return confirmed_; }
  // The size to probe now. `patience`: how long an answer may take.
  std::optional<std::uint16_t> probe(Instant now, Nanoseconds patience);
  // When probe() is worth asking again.
  Instant next() const { return next_; }
  // A packet of `size` arrived. True when that confirms more than before.
  bool answered(std::uint16_t size, Instant now);
  // Packets of the confirmed size do not arrive any more, smaller ones do (RFC 8899, 4.3).
  void black_hole(Instant now);

 private:
  std::uint16_t candidate() const;  // 0: the search is over

  std::uint16_t floor_, most_;
  Nanoseconds raise_after_;
  std::uint16_t confirmed_;
  std::uint32_t too_big_;     // the smallest size that is known not to pass, or most_ + 1
  std::uint16_t trying_ = 0;  // 0: none
  int tries_ = 0;
  Instant next_{};
};

}  // namespace godwit::wire
