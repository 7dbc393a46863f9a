#pragma once
// XXH3 (https://github.com/Cyan4973/xxHash), not cryptographic: TLS keeps strangers out, these
// sums find our own mistakes and bad memory. About 20 GB/s on one core, so both are always on.
#include <array>
#include <cstdint>
#include <memory>

#include "base/bytes.hh"

struct XXH3_state_s;

namespace godwit::stream {

using StreamDigest = std::array<std::byte, 16>;

// XXH3-128 of all bytes of a stream in order; the digest in the canonical (big-endian) form.
class StreamHash final {
 public:
  StreamHash();
  void update(BytesView bytes);
  StreamDigest digest() const;

  struct Free {
    void operator()(XXH3_state_s* state) const;
  };

 private:
  std::unique_ptr<XXH3_state_s, Free> state_;
};

// checksum() of bytes that come in parts.
class Checksum final {
 public:
  Checksum();
  void begin(std::uint64_t seed);
  void update(BytesView bytes);
  std::uint64_t value() const;

 private:
  std::unique_ptr<XXH3_state_s, StreamHash::Free> state_;
};

// XXH3-64 with a seed of `head` followed by `tail` (a frame that wraps around a ring is two spans).
std::uint64_t checksum(std::uint64_t seed, BytesView head, BytesView tail = {});

}  // namespace godwit::stream
