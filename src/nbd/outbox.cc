#include "nbd/outbox.hh"

#include <algorithm>

#include "base/check.hh"

namespace godwit::nbd {

Outbox::Outbox(std::size_t capacity)
    : capacity_(capacity), storage_(std::make_unique_for_overwrite<std::byte[]>(capacity)) {}

void Outbox::append(BytesView bytes) {
  CHECK(bytes.size() <= free(), "{} bytes, {} free", bytes.size(), free());
  const std::size_t at = (begin_ + held_) % capacity_;
  const std::size_t head = std::min(bytes.size(), capacity_ - at);
  std::copy_n(bytes.data(), head, storage_.get() + at);
  std::copy_n(bytes.data() + head, bytes.size() - head, storage_.get());
  held_ += bytes.size();
}

BytesView Outbox::peek() const {
  return {storage_.get() + begin_, std::min(held_, capacity_ - begin_)};
}

void Outbox::advance(std::size_t count) {
  CHECK(count <= peek().size(), "{} bytes of {}", count, peek().size());
  held_ -= count;
  // Empty: from the front again, so that small replies stay within the processor's cache.
  begin_ = held_ == 0 ? 0 : (begin_ + count) % capacity_;
}

}  // namespace godwit::nbd
