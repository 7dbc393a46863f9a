#pragma once
// What one direction of an emulated link does to the frames that cross it.
#include <algorithm>
#include <cstdint>
#include <optional>

#include "base/units.hh"

namespace godwit::lab {

// Ethernet II: two addresses and the type. A link's mtu is about the IP packet behind it, its rate
// and queue count the whole frame as a TAP shows it (no preamble, no checksum).
constexpr std::size_t kEthernetHeader = 14;
constexpr std::uint16_t kDefaultMtu = 1500;

// How much waits in front of the link: a size, or a time at the link's rate.
struct QueueLimit {
  std::optional<Nanoseconds> time;
  ByteCount size{};

  std::uint64_t bytes_at(BitRate rate) const {
    if (!time) return size.bytes;
    return static_cast<std::uint64_t>(rate.bytes_per_second() * static_cast<double>(time->count()) /
                                      1e9);
  }
  bool operator==(const QueueLimit&) const = default;
};

struct LinkQuality {
  std::optional<BitRate> rate;  // none: frames never queue
  Nanoseconds delay{0};         // one way
  Nanoseconds jitter{0};        // uniform in [delay - jitter, delay + jitter]
  bool reorder = false;         // whether jitter may overtake
  double loss = 0;              // Bernoulli, 0..1
  QueueLimit queue{.time = milliseconds(40), .size = {}};
  std::uint16_t mtu = kDefaultMtu;  // bytes of the IP packet
  bool mtu_silent = false;          // black hole instead of ICMP "too big"
  bool operator==(const LinkQuality&) const = default;
};

}  // namespace godwit::lab
