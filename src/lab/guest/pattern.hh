#pragma once
// Contents that follow from a number and from how often it was written, and compress to nothing
// less.
#include <cstddef>
#include <cstdint>

namespace godwit::lab {

inline std::uint64_t seed_of(std::size_t number, std::uint32_t generation) {
  return (number + 1) * 0x9e3779b97f4a7c15ULL ^ (generation + 1ULL) * 0xbf58476d1ce4e5b9ULL;
}

// xorshift64: cheap.
inline std::uint64_t next_word(std::uint64_t& state) {
  state ^= state << 13U;
  state ^= state >> 7U;
  state ^= state << 17U;
  return state;
}

}  // namespace godwit::lab
