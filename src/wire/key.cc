#include "wire/key.hh"

#include "crypto/hkdf.hh"

namespace godwit::wire {

crypto::AeadKey derive_key(std::span<const std::byte, kWireSecretBytes> secret,
                           const KeyPurpose& purpose) {
  Bytes info;
  Writer(info)
      .bytes(as_bytes("godwit wire 1"))
      .bytes(purpose.wire.bytes)
      .u32(purpose.epoch)
      .u8(static_cast<std::uint8_t>(purpose.direction))
      .u16(purpose.lane)
      .u32(purpose.generation)
      .u8(static_cast<std::uint8_t>(purpose.algorithm));
  crypto::AeadKey key;
  crypto::hkdf_expand(secret, info, key.bytes);
  return key;
}

}  // namespace godwit::wire
