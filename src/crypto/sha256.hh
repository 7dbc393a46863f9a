#pragma once
// SHA-256 (FIPS 180-4) of bytes, whole or piece by piece, and comparison in constant time.
#include <array>
#include <memory>

#include "base/bytes.hh"

struct evp_md_ctx_st;

namespace godwit::crypto {

using Sha256 = std::array<std::byte, 32>;

Sha256 sha256(BytesView bytes);

// The same of what comes in pieces. One thread.
class Sha256Stream final {
 public:
  Sha256Stream();
  void add(BytesView bytes);
  // Of all that was added; the end of the stream.
  Sha256 finish();

 private:
  struct Free {
    void operator()(evp_md_ctx_st* context) const;
  };
  std::unique_ptr<evp_md_ctx_st, Free> context_;
};

// Takes as long whether and wherever the two differ; false at once for different sizes.
bool equal_in_constant_time(BytesView a, BytesView b);

}  // namespace godwit::crypto
