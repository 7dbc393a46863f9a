#include "stream/byte_ring.hh"

#include <algorithm>
#include <bit>

#include "base/check.hh"

namespace godwit::stream {

ByteRing::ByteRing(std::size_t capacity) : capacity_(capacity), storage_(large_memory(capacity)) {
  CHECK(std::has_single_bit(capacity), "capacity {}", capacity);
}

MutableBytes ByteRing::at(std::uint64_t position, std::size_t most) {
  const std::size_t index = (position - origin_) & (capacity_ - 1);
  return {storage_.get() + index, std::min(most, capacity_ - index)};
}

BytesView ByteRing::at(std::uint64_t position, std::size_t most) const {
  const std::size_t index = (position - origin_) & (capacity_ - 1);
  return {storage_.get() + index, std::min(most, capacity_ - index)};
}

void ByteRing::write(std::uint64_t position, BytesView from) {
  CHECK(from.size() <= capacity_, "{} bytes into a ring of {}", from.size(), capacity_);
  while (!from.empty()) {
    const MutableBytes room = at(position, from.size());
    std::copy_n(from.begin(), room.size(), room.begin());
    position += room.size();
    from = from.subspan(room.size());
  }
}

}  // namespace godwit::stream
