#include "stream/in_stream.hh"

#include <algorithm>

namespace godwit::stream {

InStream::Verdict InStream::begin(const FrameHeader& header) const {
  // In order and without gaps: a lane is a reliable stream, so anything else is a fault.
  if (end_ || header.sequence != received_) return Verdict::kLaneFault;
  const std::uint64_t after = received_ - delivered_ + header.length;
  return after <= ring_.capacity() ? Verdict::kGood : Verdict::kLaneFault;
}

void InStream::store(BytesView bytes) {
  if (partial_ == 0 && delivered_ == received_) ring_.rewind(received_);
  ring_.write(received_ + partial_, bytes);
  partial_ += bytes.size();
}

InStream::Verdict InStream::finish(const FrameHeader& header) {
  const BytesView head = std::as_const(ring_).at(received_, partial_);
  const BytesView tail = std::as_const(ring_).at(received_ + head.size(), partial_ - head.size());
  if (payload_checksum(header, head, tail) != header.checksum) return Verdict::kCorrupt;
  received_ += partial_;
  partial_ = 0;
  return Verdict::kGood;
}

void InStream::delivered(BytesView bytes) {
  hash_.update(bytes);
  delivered_ += bytes.size();
}

InStream::Verdict InStream::end(std::uint64_t total, BytesView digest) {
  if (total != received_ || digest.size() != digest_.size()) return Verdict::kLaneFault;
  StreamDigest claimed;
  std::copy_n(digest.begin(), claimed.size(), claimed.begin());
  if (end_ && claimed != digest_) return Verdict::kCorrupt;  // repeated on a new lane, but another
  end_ = total;
  digest_ = claimed;
  return Verdict::kGood;
}

InStream::Verdict InStream::verify_end() {
  if (hash_.digest() != digest_) return Verdict::kCorrupt;
  ended_ = true;
  return Verdict::kGood;
}

}  // namespace godwit::stream
