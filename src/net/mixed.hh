#pragma once
// Spreads what is in a number over all of its bits: splitmix64 (Steele, Lea, Flood 2014).
#include <cstdint>

namespace godwit::net {

constexpr std::uint64_t mixed(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

}  // namespace godwit::net
