#pragma once
// A batch as it is sent: its header, and what zstd makes of it in one of the stream's windows.
// Batches of one window in their order; those of several may be packed at the same time. One
// thread.
#include <optional>

#include "codec/batch.hh"
#include "codec/zstd.hh"

namespace godwit::codec {

class BatchPacker final {
 public:
  BatchPacker(std::uint8_t window, int window_bits) : window_(window), window_bits_(window_bits) {}

  // Appends it. `level`: of zstd; 0: it is not compressed. Another one than before holds
  // from the next batch on; the window begins anew then.
  void pack(const PlainBatch& batch, int level, Bytes& out);

 private:
  std::uint8_t window_;
  int window_bits_;
  std::optional<Compressor> compressor_;  // its memory is large, and may not be needed
};

}  // namespace godwit::codec
