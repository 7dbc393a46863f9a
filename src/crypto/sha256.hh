#pragma once
// SHA-256 (FIPS 180-4) of bytes, and comparison in constant time.
#include <array>

#include "base/bytes.hh"

namespace godwit::crypto {

using Sha256 = std::array<std::byte, 32>;

Sha256 sha256(BytesView bytes);

// Takes as long whether and wherever the two differ; false at once for different sizes.
bool equal_in_constant_time(BytesView a, BytesView b);

}  // namespace godwit::crypto
