#pragma once
// Memory for what is large and filled from end to end: in huge pages where the kernel has them. A
// megabyte of new 4 KiB pages costs 0.1 ms on a host and 8 ms in some vms (measured 2026-11), which
// is as much as to compress it.
#include <cstddef>
#include <cstdlib>
#include <memory>

namespace godwit {

struct FreeLarge {
  void operator()(std::byte* memory) const { std::free(memory); }
};
using LargeMemory = std::unique_ptr<std::byte[], FreeLarge>;

// `size` bytes, not initialised; the kernel gives them as they are written. Throws std::bad_alloc.
LargeMemory large_memory(std::size_t size);

}  // namespace godwit
