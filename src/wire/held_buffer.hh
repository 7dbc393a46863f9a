#pragma once
// Frames kept in order under a bound of bytes. What does not fit is dropped and counted: the newest
// goes, so that what is kept has no gaps but at its end.
#include <cstdint>
#include <deque>

#include "base/bytes.hh"

namespace godwit::wire {

class HeldBuffer final {
 public:
  // Each frame also costs its bookkeeping, so that tiny ones are bounded too.
  static constexpr std::size_t kFrameOverhead = 64;

  // False when `limit` bytes would be passed.
  bool push(BytesView frame, std::size_t limit) {
    if (bytes_ + frame.size() + kFrameOverhead > limit) return false;
    bytes_ += frame.size() + kFrameOverhead;
    frames_.push_back(to_bytes(frame));
    return true;
  }
  Bytes pop() {
    Bytes frame = std::move(frames_.front());
    frames_.pop_front();
    bytes_ -= frame.size() + kFrameOverhead;
    return frame;
  }
  void clear() { frames_.clear(), bytes_ = 0; }

  bool empty() const { return frames_.empty(); }
  std::size_t size() const { return frames_.size(); }
  std::size_t bytes() const { return bytes_; }
  const std::deque<Bytes>& frames() const { return frames_; }

 private:
  std::deque<Bytes> frames_;
  std::size_t bytes_ = 0;
};

}  // namespace godwit::wire
