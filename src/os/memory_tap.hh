#pragma once
// The in-memory double of a TAP: a test puts frames for read() and takes what write() was given.
#include <algorithm>
#include <deque>
#include <vector>

#include "os/tap.hh"

namespace godwit::os {

class MemoryTap final : public FrameDevice {
 public:
  explicit MemoryTap(std::size_t queue_frames = kTapQueueFrames) : queue_frames_(queue_frames) {}

  std::size_t read(MutableBytes into) override {
    if (to_read_.empty()) return 0;
    const Bytes frame = std::move(to_read_.front());
    to_read_.pop_front();
    const auto size = std::min(frame.size(), into.size());
    std::copy_n(frame.begin(), size, into.begin());
    return size;
  }

  Written write(BytesView frame) override {
    if (frame.size() <= kVnetHeaderBytes) return Written::kRefused;
    if (written_.size() >= queue_frames_) return Written::kBusy;
    written_.push_back(to_bytes(frame));
    return Written::kYes;
  }

  // As the kernel would: false when the queue is full and the frame is lost.
  bool put(BytesView frame) {
    if (to_read_.size() >= queue_frames_) return false;
    to_read_.push_back(to_bytes(frame));
    return true;
  }
  std::vector<Bytes> take() { return std::exchange(written_, {}); }

 private:
  std::size_t queue_frames_;
  std::deque<Bytes> to_read_;
  std::vector<Bytes> written_;
};

}  // namespace godwit::os
