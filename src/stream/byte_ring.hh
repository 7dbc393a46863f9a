#pragma once
// A ring addressed by stream position, not by index: byte p of a stream stays at the same place
// from when it is written until the owner lets positions a whole capacity later be written. The
// owner tracks which positions are live; memory is taken from the system only as it is first
// touched.
#include <cstdint>

#include "base/bytes.hh"
#include "base/large_memory.hh"

namespace godwit::stream {

class ByteRing final {
 public:
  // `capacity` in bytes, a power of two (CHECKed).
  explicit ByteRing(std::size_t capacity);

  std::size_t capacity() const { return capacity_; }
  // The contiguous bytes from `position` on: at most `most`, fewer where the ring wraps.
  MutableBytes at(std::uint64_t position, std::size_t most);
  BytesView at(std::uint64_t position, std::size_t most) const;
  // Copies `from` to `position` on, over the wrap if need be; at most capacity() bytes.
  void write(std::uint64_t position, BytesView from);
  // No position is live: the next one, `position`, starts at the front again, so that a stream
  // whose reader keeps up stays within the processor's cache.
  void rewind(std::uint64_t position) { origin_ = position; }

 private:
  std::size_t capacity_;
  std::uint64_t origin_ = 0;
  LargeMemory storage_;
};

}  // namespace godwit::stream
