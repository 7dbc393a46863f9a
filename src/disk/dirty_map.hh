#pragma once
// Which blocks of a disk the other site lacks. Pure; owned by one thread.
#include <cstdint>
#include <optional>
#include <vector>

#include "base/units.hh"

namespace godwit::disk {

// As large as a cluster of qcow2: one write of the guest costs no more on the way than in the file.
// A terabyte has 2 MiB of bits.
inline constexpr std::uint64_t kBlockBytes = 64 << 10;

struct Extent {
  std::uint64_t offset = 0, length = 0;  // bytes
  std::uint64_t end() const { return offset + length; }
  bool operator==(const Extent&) const = default;
};

inline bool overlaps(Extent a, Extent b) { return a.offset < b.end() && b.offset < a.end(); }

class DirtyMap final {
 public:
  // Of a disk of so many bytes, all clean. The last block may be a part of one.
  explicit DirtyMap(ByteCount size);

  // Every block that the extent touches; it must be within the disk, CHECKed.
  void mark(Extent extent);
  // The next dirty blocks, in turn over the disk below `end` (of a block, or of the disk), at most
  // `most` bytes (a multiple of kBlockBytes), which are clean from now on.
  std::optional<Extent> take(std::uint64_t most, std::uint64_t end);
  std::optional<Extent> take(std::uint64_t most) { return take(most, size_); }

  ByteCount size() const { return {size_}; }
  std::uint64_t dirty_blocks() const { return dirty_; }
  std::uint64_t dirty_bytes() const { return dirty_ * kBlockBytes; }  // the last counts as a whole
  bool is_dirty(std::uint64_t offset) const { return test(offset / kBlockBytes); }

 private:
  bool test(std::uint64_t block) const { return (bits_[block / 64] >> (block % 64) & 1) != 0; }
  std::uint64_t next_dirty(std::uint64_t from, std::uint64_t end) const;

  std::uint64_t size_, blocks_;
  std::vector<std::uint64_t> bits_;
  std::uint64_t dirty_ = 0;
  std::uint64_t cursor_ = 0;  // block
};

}  // namespace godwit::disk
