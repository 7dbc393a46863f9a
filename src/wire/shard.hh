#pragma once
// A host with several wire threads has an engine in each: *shards*. A port, its wire and its
// channels are in one of them. To other hosts they look like one: one address, one tag. What of
// that cannot be divided is the first shard's: the paths to peers, what peers are told of ours,
// what is forwarded for others, and all that is received.
//
//   first shard ── route(host) ──▶ every other     ("datagrams to that host go there")
//   another     ── frames_sent(host) ──▶ the first ("that path is in use: watch it")
//   first       ── datagrams(shard) ──▶ the shard that gave out their receiver index
//
// A receiver index ends with the number of the shard that gave it out. Ports go from shard to shard
// with all that is theirs (Engine::take, Engine::adopt); where their indices lead to then is
// remembered by the first.
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.hh"
#include "wire/types.hh"

namespace godwit::wire {

inline constexpr std::uint16_t kMostShards = 64;

// The number of a shard is in these bits of a receiver index.
constexpr std::uint16_t shard_mask(std::uint16_t shards) {
  return static_cast<std::uint16_t>(std::bit_ceil(shards) - 1);
}

// Generations of keys (control.hh, Offer) are counted by each shard for itself, above these bits.
inline constexpr int kGenerationBits = 26;
constexpr std::uint32_t first_generation(std::uint16_t shard) {
  return std::uint32_t{shard} << kGenerationBits | 1;
}
constexpr std::size_t shard_of_generation(std::uint32_t generation) {
  return generation >> kGenerationBits;
}

// How datagrams get to a host at present.
struct Route {
  std::optional<PeerAddress> target;    // nothing: no address is known at all
  std::string via;                      // the relaying host; empty: direct
  std::string_view state = "unproven";  // as WireStats::path_state
  std::uint16_t mtu = 0;

  bool operator==(const Route&) const = default;
};

// The other engines of this host, as an engine reaches them: by messages, in order.
class Siblings {
 public:
  virtual ~Siblings() = default;
  virtual void route(const std::string& host, const Route& route) = 0;
  virtual void frames_sent(const std::string& host) = 0;
  virtual void datagrams(std::uint16_t shard, const PeerAddress& from, BytesView run,
                         std::uint16_t segment_size) = 0;
  // To the first: this receiver index, which was in other shards, is not given out any more.
  virtual void release_index(std::uint32_t index) = 0;
};

// Which one an engine is.
struct Shard {
  std::uint16_t index = 0, count = 1;
  std::uint16_t tag = 0;         // the same in all of a host
  Siblings* siblings = nullptr;  // null: it is alone, and makes its own tag

  bool is_first() const { return index == 0; }
};

}  // namespace godwit::wire
