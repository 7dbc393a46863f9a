#pragma once
// Bytes for the socket, in a ring of fixed size. Owned by a Connection, which takes no request
// whose reply might find no room.
#include <memory>

#include "base/bytes.hh"

namespace godwit::nbd {

class Outbox final {
 public:
  explicit Outbox(std::size_t capacity);

  std::size_t free() const { return capacity_ - held_; }
  bool empty() const { return held_ == 0; }
  // At most free() bytes, CHECKed.
  void append(BytesView bytes);
  // Up to where the ring wraps; valid until the next call of another function.
  BytesView peek() const;
  void advance(std::size_t count);

 private:
  std::size_t capacity_;
  // Not in huge pages: a client that only writes never fills the first 4 KiB of it.
  std::unique_ptr<std::byte[]> storage_;
  std::size_t begin_ = 0, held_ = 0;
};

}  // namespace godwit::nbd
