#pragma once
// Bytes from the socket on their way to whole messages, which are contiguous and used where they
// were read to. Owned by a Connection.
//
//   0        begin_           end_      limit of room()        capacity
//   | taken  | not yet taken  | room()  |                      |
//
// room() ends a little behind the message at the front, so that many small messages come by one
// read, and that what has to be moved when the end is near is little: of a large payload only what
// came with the message before it.
#include "base/bytes.hh"
#include "base/large_memory.hh"

namespace godwit::nbd {

class Inbox final {
 public:
  static constexpr std::size_t kReadAhead = 64 << 10;  // bytes

  // For messages of at most `longest` bytes.
  explicit Inbox(std::size_t longest);

  // Where to read to. Empty when kReadAhead bytes behind the message at the front wait already.
  // Bytes that were taken are no more valid afterwards.
  MutableBytes room();
  void commit(std::size_t count);

  BytesView bytes() const { return {storage_.get() + begin_, end_ - begin_}; }
  // The message at the front has so many bytes, of which not all have come.
  void expect(std::size_t whole);
  // The bytes stay valid until room().
  BytesView take(std::size_t count);
  // What has not come of them is dropped when it comes.
  void skip(std::uint64_t count);

 private:
  void drop_skipped();

  std::size_t capacity_;
  LargeMemory storage_;
  std::size_t begin_ = 0, end_ = 0;
  std::size_t expected_ = 0;   // 0: not known
  std::uint64_t to_skip_ = 0;  // bytes; then there are none in between
};

}  // namespace godwit::nbd
