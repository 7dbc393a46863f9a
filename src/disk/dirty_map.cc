#include "disk/dirty_map.hh"

#include <algorithm>
#include <bit>

#include "base/check.hh"

namespace godwit::disk {

DirtyMap::DirtyMap(ByteCount size)
    : size_(size.bytes),
      blocks_((size_ + kBlockBytes - 1) / kBlockBytes),
      bits_((blocks_ + 63) / 64) {}

void DirtyMap::mark(Extent extent) {
  CHECK(extent.offset <= size_ && extent.length <= size_ - extent.offset, "{} bytes at {} of {}",
        extent.length, extent.offset, size_);
  if (extent.length == 0) return;
  const std::uint64_t last = (extent.end() - 1) / kBlockBytes;
  for (std::uint64_t block = extent.offset / kBlockBytes; block <= last; ++block) {
    std::uint64_t& word = bits_[block / 64];
    const std::uint64_t bit = std::uint64_t{1} << (block % 64);
    dirty_ += (word & bit) == 0 ? 1 : 0;
    word |= bit;
  }
}

// `end` when there is none.
std::uint64_t DirtyMap::next_dirty(std::uint64_t from, std::uint64_t end) const {
  for (std::uint64_t at = from; at < end; at = (at / 64 + 1) * 64) {
    const std::uint64_t word = bits_[at / 64] >> (at % 64);
    if (word != 0) return std::min(at + static_cast<std::uint64_t>(std::countr_zero(word)), end);
  }
  return end;
}

std::optional<Extent> DirtyMap::take(std::uint64_t most, std::uint64_t end) {
  if (dirty_ == 0) return std::nullopt;
  const std::uint64_t end_block = std::min((end + kBlockBytes - 1) / kBlockBytes, blocks_);
  std::uint64_t first = next_dirty(cursor_, end_block);
  if (first >= end_block) first = next_dirty(0, end_block);
  if (first == end_block) return std::nullopt;
  std::uint64_t last = first;  // behind what is taken
  while (last < end_block && (last - first) * kBlockBytes < most && test(last)) {
    bits_[last / 64] &= ~(std::uint64_t{1} << (last % 64));
    --dirty_;
    ++last;
  }
  cursor_ = last;
  const std::uint64_t offset = first * kBlockBytes;
  return Extent{.offset = offset, .length = std::min(last * kBlockBytes, size_) - offset};
}

}  // namespace godwit::disk
