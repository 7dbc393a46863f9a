#pragma once
// The receiving end of one stream: verified bytes, kept until the consumer takes them in order.
//
//      delivered        received                                  delivered + window
//   -----|--- waiting -----|--- gap ---|--- beyond it ---|-----------|
//
// Frames come in order on each lane, and in any order over several. The peer keeps within the
// window, so what is kept is bounded by it whatever the consumer does.
#include <algorithm>
#include <optional>

#include "stream/byte_ring.hh"
#include "stream/frame_reader.hh"
#include "stream/intervals.hh"
#include "stream/stream_hash.hh"

namespace godwit::stream {

class InStream final {
 public:
  explicit InStream(std::size_t window) : ring_(window) {}

  enum class Verdict {
    kGood,
    kLaneFault,  // the peer broke the protocol on this lane
    kCorrupt,    // a sum is wrong: these are not the bytes that the writer wrote
  };
  // A part of a DATA frame. `consumer` is offered bytes straight from a frame that came in one
  // piece.
  template <class Consumer>
  Verdict data(const FramePart& part, Consumer&& consumer);
  Verdict end(std::uint64_t total, BytesView digest);
  // Offers what waits to `consumer`, until it takes less than offered.
  template <class Consumer>
  void deliver(Consumer&& consumer);
  // True once: all is delivered and END is here. Then ask verified().
  bool reached_end() const { return end_ && !ended_ && delivered_ == *end_; }
  // Compares the sum over all delivered bytes with the writer's.
  Verdict verify_end();

  std::uint64_t received() const { return received_; }  // without a gap
  std::uint64_t delivered() const { return delivered_; }
  bool ended() const { return ended_; }

 private:
  bool may_come(const FrameHeader& header) const;
  void store(std::uint64_t position, BytesView bytes);
  Verdict finish(const FrameHeader& header);
  void delivered(BytesView bytes);

  ByteRing ring_;
  StreamHash hash_;  // of what was delivered
  std::uint64_t delivered_ = 0;
  std::uint64_t received_ = 0;
  Intervals beyond_;          // received too, after a gap
  std::uint64_t stored_ = 0;  // nothing was ever written to the ring from here on
  std::optional<std::uint64_t> end_;
  StreamDigest digest_{};
  bool ended_ = false;
};

template <class Consumer>
InStream::Verdict InStream::data(const FramePart& part, Consumer&& consumer) {
  const FrameHeader& header = part.header;
  if (part.offset == 0 && !may_come(header)) return Verdict::kLaneFault;
  const bool is_next = delivered_ == received_ && header.sequence == received_;
  if (is_next && part.bytes.size() == header.length && stored_ <= received_) {
    if (!part.intact) return Verdict::kCorrupt;
    received_ += header.length;
    const std::size_t taken = consumer(part.bytes);
    delivered(part.bytes.first(taken));
    store(delivered_, part.bytes.subspan(taken));
    return Verdict::kGood;
  }
  const std::uint64_t position = header.sequence + part.offset;
  const std::uint64_t known = received_ - std::min(received_, position);
  store(position + known, part.bytes.subspan(std::min<std::uint64_t>(known, part.bytes.size())));
  if (!part.last) return Verdict::kGood;
  if (!part.intact) return Verdict::kCorrupt;
  if (const Verdict verdict = finish(header); verdict != Verdict::kGood) return verdict;
  deliver(consumer);
  return Verdict::kGood;
}

template <class Consumer>
void InStream::deliver(Consumer&& consumer) {
  while (delivered_ < received_) {
    const BytesView waiting = ring_.at(delivered_, received_ - delivered_);
    const std::size_t taken = consumer(waiting);
    delivered(waiting.first(taken));
    if (taken < waiting.size()) return;
  }
}

}  // namespace godwit::stream
