#pragma once
// Zstandard (RFC 8878), one frame over all batches of a stream, flushed at the end of each: what
// was said within the window before is referred to. Another level begins another frame, with
// nothing before it. libzstd does the work.
#include <memory>

#include "base/bytes.hh"

struct ZSTD_CCtx_s;
struct ZSTD_DCtx_s;

namespace godwit::codec {

inline constexpr int kLeastWindowBits = 10;  // zstd's own
inline constexpr int kMaxWindowBits = 27;

class Compressor final {
 public:
  // `window_bits`: how far back it looks (log2 of bytes), which both ends keep in memory.
  explicit Compressor(int window_bits);
  // Appends `plain`, compressed and flushed. Another level than before ends the frame with it.
  void compress(BytesView plain, int level, Bytes& out);

 private:
  struct Free {
    void operator()(ZSTD_CCtx_s* context) const;
  };
  void begin_frame(int level);

  std::unique_ptr<ZSTD_CCtx_s, Free> context_;
  Bytes room_;     // zeroed once, not with each batch
  int level_ = 0;  // of the frame; 0: none has begun
};

class Decompressor final {
 public:
  explicit Decompressor(int most_window_bits);
  // Fills `plain` exactly from `coded`, all of it; false: they do not belong together.
  bool decompress(BytesView coded, MutableBytes plain);

 private:
  struct Free {
    void operator()(ZSTD_DCtx_s* context) const;
  };
  std::unique_ptr<ZSTD_DCtx_s, Free> context_;
};

}  // namespace godwit::codec
