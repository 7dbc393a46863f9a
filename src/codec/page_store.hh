#pragma once
// The pages that both ends of a transfer keep, the same ones in the same slots: each end puts and
// uses what the operations say, in their order, and who makes room for whom follows from that
// alone. One thread; memory: the budget, taken as it fills, and about 2 % of it for the index.
#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "base/bytes.hh"
#include "base/large_memory.hh"

namespace godwit::codec {

// A guest's page: its block, in the order in which the stream first names them, and its number.
using PageKey = std::uint64_t;
inline constexpr int kPageNumberBits = 48;
inline constexpr std::uint64_t kMaxPageNumber = (std::uint64_t{1} << kPageNumberBits) - 1;
inline PageKey page_key(std::size_t block, std::uint64_t number) {
  return (std::uint64_t{block} << kPageNumberBits) | number;
}

using Slot = std::uint32_t;
inline constexpr Slot kNoSlot = UINT32_MAX;

class PageStore final {
 public:
  PageStore(std::size_t budget, std::size_t page_size);

  std::size_t slots() const { return capacity_; }
  std::size_t used() const { return used_; }
  bool full() const { return used_ == capacity_; }
  std::size_t page_size() const { return page_size_; }

  Slot find(PageKey key) const;
  BytesView at(Slot slot) const { return {pages_.get() + slot * page_size_, page_size_}; }
  bool holds(Slot slot) const { return slot < used_; }

  // Keeps `contents` as the page's: in its slot, in a free one, or in the one that was used least
  // lately (second chance). There must be slots().
  Slot put(PageKey key, BytesView contents);
  // To write what a delta says into.
  MutableBytes change(Slot slot) { return {pages_.get() + slot * page_size_, page_size_}; }
  // It is of use still.
  void touch(Slot slot) { used_lately_[slot] = true; }

 private:
  Slot victim();

  std::size_t page_size_;
  std::size_t capacity_;
  std::size_t used_ = 0;
  Slot hand_ = 0;
  LargeMemory pages_;
  std::vector<PageKey> keys_;  // of the slots
  std::vector<bool> used_lately_;
  std::unordered_map<PageKey, Slot> slot_of_;
};

}  // namespace godwit::codec
