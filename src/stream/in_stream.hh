#pragma once
// The receiving end of one stream: verified bytes in order, kept until the consumer takes them.
//
//      delivered        received     (part of a frame)    delivered + window
//   -----|--- waiting -----|-------- unverified -----|------------|
//
// The peer keeps within the window, so waiting bytes are bounded by it whatever the consumer does.
#include <optional>
#include <string>

#include "base/result.hh"
#include "stream/byte_ring.hh"
#include "stream/frame_reader.hh"
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

  void lane_died() { partial_ = 0; }

  std::uint64_t received() const { return received_; }
  std::uint64_t delivered() const { return delivered_; }
  bool ended() const { return ended_; }

 private:
  Verdict begin(const FrameHeader& header) const;
  void store(BytesView bytes);
  Verdict finish(const FrameHeader& header);
  void delivered(BytesView bytes);

  ByteRing ring_;
  StreamHash hash_;  // of what was delivered
  std::uint64_t delivered_ = 0;
  std::uint64_t received_ = 0;
  std::size_t partial_ = 0;  // bytes of the current frame, behind received_
  std::optional<std::uint64_t> end_;
  StreamDigest digest_{};
  bool ended_ = false;
};

template <class Consumer>
InStream::Verdict InStream::data(const FramePart& part, Consumer&& consumer) {
  if (part.first) {
    if (const Verdict verdict = begin(part.header); verdict != Verdict::kGood) return verdict;
  }
  BytesView bytes = part.bytes;
  if (part.first && part.last && delivered_ == received_) {
    if (payload_checksum(part.header, bytes) != part.header.checksum) return Verdict::kCorrupt;
    received_ += bytes.size();
    const std::size_t taken = consumer(bytes);
    delivered(bytes.first(taken));
    if (taken < bytes.size()) {
      ring_.rewind(delivered_);
      ring_.write(delivered_, bytes.subspan(taken));
    }
    return Verdict::kGood;
  }
  store(bytes);
  if (!part.last) return Verdict::kGood;
  if (const Verdict verdict = finish(part.header); verdict != Verdict::kGood) return verdict;
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
