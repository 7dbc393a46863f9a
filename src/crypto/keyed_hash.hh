#pragma once
// Names for contents that nobody can make two of, or guess, without the key: BLAKE2b with a key and
// 128 bits of output (RFC 7693), 1 GB/s on any CPU (SHA-256 is as fast only where the CPU has it).
#include <array>
#include <memory>

#include "base/bytes.hh"

struct evp_mac_ctx_st;

namespace godwit::crypto {

class KeyedHash final {
 public:
  static constexpr std::size_t kKeySize = 32;
  static constexpr std::size_t kSize = 16;
  using Digest = std::array<std::byte, kSize>;

  explicit KeyedHash(BytesView key);  // kKeySize bytes
  Digest operator()(BytesView bytes);

 private:
  struct Free {
    void operator()(evp_mac_ctx_st* context) const;
  };
  std::unique_ptr<evp_mac_ctx_st, Free> context_;
};

}  // namespace godwit::crypto
