#include "stream/out_stream.hh"

#include <algorithm>

#include "base/check.hh"

namespace godwit::stream {

OutStream::OutStream(std::size_t window, std::size_t unsent_limit)
    : unsent_limit_(unsent_limit), ring_(window) {}

MutableBytes OutStream::space() {
  if (ended_) return {};
  if (acked_ == offered_) ring_.rewind(offered_);
  const std::uint64_t unsent = offered_ - sent_;
  const std::uint64_t kept = offered_ - acked_;
  if (unsent >= unsent_limit_) return {};
  return ring_.at(offered_, std::min(unsent_limit_ - unsent, ring_.capacity() - kept));
}

void OutStream::commit(std::size_t count) {
  CHECK(!ended_ && offered_ - acked_ + count <= ring_.capacity(), "commit of {}", count);
  const BytesView written = ring_.at(offered_, count);
  CHECK(written.size() == count, "commit of {} bytes, space had {}", count, written.size());
  hash_.update(written);
  offered_ += count;
}

void OutStream::end() { ended_ = true; }

FrameHeader OutStream::next_data(StreamId id, std::size_t most) {
  const std::size_t length = std::min<std::uint64_t>(most, offered_ - sent_);
  const BytesView head = ring_.at(sent_, length);
  const BytesView tail = ring_.at(sent_ + head.size(), length - head.size());
  FrameHeader header{.kind = FrameKind::kData,
                     .stream = id,
                     .length = static_cast<std::uint32_t>(length),
                     .sequence = sent_};
  header.checksum = payload_checksum(header, head, tail);
  const std::uint64_t after = sent_ + length;
  resent_ += std::min(after, high_) - std::min(sent_, high_);
  sent_ = after;
  high_ = std::max(high_, sent_);
  return header;
}

void OutStream::append_end(StreamId id, Bytes& out) {
  CHECK(wants_end());
  append_frame(out, {.kind = FrameKind::kEnd, .stream = id, .sequence = offered_}, hash_.digest());
  end_sent_ = true;
}

bool OutStream::acknowledge(std::uint64_t delivered, bool ended) {
  if (delivered < acked_ || delivered > sent_) return false;
  // An END may be acknowledged on a later lane than it was sent on.
  if (ended && (!ended_ || delivered != offered_)) return false;
  acked_ = delivered;
  end_acked_ = end_acked_ || ended;
  return true;
}

bool OutStream::resume_from(std::uint64_t received, bool ended) {
  if (received < acked_ || received > high_) return false;
  if (ended && (!ended_ || received != offered_)) return false;
  if (end_acked_ && !ended) return false;
  sent_ = received;
  end_sent_ = false;
  if (ended) {
    acked_ = received;
    end_sent_ = end_acked_ = true;
  }
  return true;
}

}  // namespace godwit::stream
