#include "stream/in_stream.hh"

#include <algorithm>

namespace godwit::stream {
namespace {

// More than a peer's lanes make: half a window of the shortest bulk frames is 1,024.
constexpr std::size_t kMostGaps = 4096;

}  // namespace

bool InStream::may_come(const FrameHeader& header) const {
  const std::uint64_t end = header.sequence + header.length;
  const std::uint64_t window = delivered_ + ring_.capacity();
  return end > header.sequence && end <= std::min(window, end_.value_or(window));
}

void InStream::store(std::uint64_t position, BytesView bytes) {
  if (bytes.empty()) return;
  if (stored_ <= delivered_) ring_.rewind(delivered_);
  ring_.write(position, bytes);
  stored_ = std::max(stored_, position + bytes.size());
}

InStream::Verdict InStream::finish(const FrameHeader& header) {
  beyond_.add(std::max(received_, header.sequence), header.sequence + header.length);
  if (!beyond_.empty() && beyond_.first().from == received_) {
    received_ = beyond_.first().to;
    beyond_.remove_below(received_);
  }
  return beyond_.count() > kMostGaps ? Verdict::kLaneFault : Verdict::kGood;
}

void InStream::delivered(BytesView bytes) {
  hash_.update(bytes);
  delivered_ += bytes.size();
}

InStream::Verdict InStream::end(std::uint64_t total, BytesView digest) {
  const std::uint64_t known = beyond_.empty() ? received_ : beyond_.last().to;
  if (total < known || digest.size() != digest_.size()) return Verdict::kLaneFault;
  StreamDigest claimed;
  std::copy_n(digest.begin(), claimed.size(), claimed.begin());
  if (end_ && (total != *end_ || claimed != digest_)) return Verdict::kCorrupt;
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
