#include "stream/stream_hash.hh"

#define XXH_STATIC_LINKING_ONLY  // XXH3_state_t on the stack
#include <xxhash.h>

#include <new>

#include "base/check.hh"

namespace godwit::stream {

StreamHash::StreamHash() : state_(XXH3_createState()) {
  if (!state_) throw std::bad_alloc();
  CHECK(XXH3_128bits_reset(state_.get()) == XXH_OK);
}

void StreamHash::Free::operator()(XXH3_state_s* state) const { XXH3_freeState(state); }

void StreamHash::update(BytesView bytes) {
  CHECK(XXH3_128bits_update(state_.get(), bytes.data(), bytes.size()) == XXH_OK);
}

StreamDigest StreamHash::digest() const {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state_.get()));
  StreamDigest digest;
  static_assert(sizeof canonical.digest == digest.size());
  std::memcpy(digest.data(), canonical.digest, digest.size());
  return digest;
}

Checksum::Checksum() : state_(XXH3_createState()) {
  if (!state_) throw std::bad_alloc();
}

void Checksum::begin(std::uint64_t seed) {
  CHECK(XXH3_64bits_reset_withSeed(state_.get(), seed) == XXH_OK);
}

void Checksum::update(BytesView bytes) {
  CHECK(XXH3_64bits_update(state_.get(), bytes.data(), bytes.size()) == XXH_OK);
}

std::uint64_t Checksum::value() const { return XXH3_64bits_digest(state_.get()); }

std::uint64_t checksum(std::uint64_t seed, BytesView head, BytesView tail) {
  if (tail.empty()) return XXH3_64bits_withSeed(head.data(), head.size(), seed);
  XXH3_state_t state;
  XXH3_INITSTATE(&state);
  CHECK(XXH3_64bits_reset_withSeed(&state, seed) == XXH_OK);
  CHECK(XXH3_64bits_update(&state, head.data(), head.size()) == XXH_OK);
  CHECK(XXH3_64bits_update(&state, tail.data(), tail.size()) == XXH_OK);
  return XXH3_64bits_digest(&state);
}

}  // namespace godwit::stream
