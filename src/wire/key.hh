#pragma once
// The keys of a wire, derived from the secret that the two hosts' TLS session exports
// (docs/protocol/wire.md, "Keys"). They are never stored and never travel.
#include <array>
#include <cstdint>

#include "base/bytes.hh"
#include "base/id.hh"
#include "crypto/aead.hh"

namespace godwit::wire {

// Which end of the session seals under the key.
enum class Direction : std::uint8_t { from_initiator = 0, from_acceptor = 1 };

// Everything a key is for. Two purposes that differ anywhere have independent keys; the same
// purpose must not be used twice within a session (a generation is never reused).
struct KeyPurpose {
  WireId wire;
  Epoch epoch = 0;
  Direction direction = Direction::from_initiator;
  std::uint16_t lane = 0;
  std::uint32_t generation = 0;
  crypto::AeadAlgorithm algorithm = crypto::AeadAlgorithm::aes_256_gcm;
};

inline constexpr std::size_t kWireSecretBytes = 32;

crypto::AeadKey derive_key(std::span<const std::byte, kWireSecretBytes> secret,
                           const KeyPurpose& purpose);

}  // namespace godwit::wire
