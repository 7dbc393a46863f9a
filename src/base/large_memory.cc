#include "base/large_memory.hh"

#include <sys/mman.h>

#include <algorithm>
#include <new>

namespace godwit {
namespace {

constexpr std::size_t kHugePage = 2 << 20;  // x86-64, and Arm with 4 KiB pages

}  // namespace

LargeMemory large_memory(std::size_t size) {
  const bool huge = size >= kHugePage;
  const std::size_t unit = huge ? kHugePage : alignof(std::max_align_t);
  const std::size_t rounded = (std::max<std::size_t>(size, 1) + unit - 1) / unit * unit;
  void* memory = std::aligned_alloc(unit, rounded);
  if (memory == nullptr) throw std::bad_alloc();
  if (huge) ::madvise(memory, rounded, MADV_HUGEPAGE);  // a wish: nothing depends on it
  return LargeMemory(static_cast<std::byte*>(memory));
}

}  // namespace godwit
