#pragma once
// Frames on their way from one wire thread to another: all of one turn, in one piece. Pieces are
// used again, and how much of them is on its way is bounded by who sends them.
#include <atomic>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "base/bytes.hh"
#include "base/id.hh"

namespace godwit::agent {

struct Crossing {
  // Consecutive frames of `bytes`.
  struct Parcel {
    PortId port;
    bool to_component = false;  // or from it, into the port
    std::size_t frames = 0;
  };
  std::vector<Parcel> parcels{};
  std::vector<std::size_t> ends{};  // of frames
  Bytes bytes{};

  void add(const PortId& port, bool to_component, std::span<const BytesView> frames) {
    parcels.push_back({.port = port, .to_component = to_component, .frames = frames.size()});
    for (const BytesView frame : frames) {
      append(bytes, frame);
      ends.push_back(bytes.size());
    }
  }
  void clear() {
    parcels.clear();
    ends.clear();
    bytes.clear();
  }
};

// Of one sending thread; takers give back from theirs.
class Crossings final {
 public:
  std::unique_ptr<Crossing> take() {
    const std::scoped_lock lock(mutex_);
    if (spare_.empty()) return std::make_unique<Crossing>();
    auto crossing = std::move(spare_.back());
    spare_.pop_back();
    return crossing;
  }
  void sent(std::size_t bytes) { under_way_ += bytes; }
  // True: the sender waits for it, and is to be told.
  bool give_back(std::unique_ptr<Crossing> crossing) {
    const std::size_t bytes = crossing->bytes.size();
    crossing->clear();
    {
      const std::scoped_lock lock(mutex_);
      if (spare_.size() < kMostSpare) spare_.push_back(std::move(crossing));
    }
    const std::size_t before = under_way_.fetch_sub(bytes);
    return before >= kMostBytes && before - bytes < kMostBytes;
  }
  // The sender takes nothing more from guests, who keep it; at double of it, it drops.
  bool is_full() const { return under_way_ >= kMostBytes; }
  bool is_overfull() const { return under_way_ >= 2 * kMostBytes; }

 private:
  // 4 MiB is 3 ms at 10 Gbit/s.
  static constexpr std::size_t kMostBytes = 4 << 20, kMostSpare = 8;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Crossing>> spare_;
  std::atomic<std::size_t> under_way_ = 0;
};

}  // namespace godwit::agent
