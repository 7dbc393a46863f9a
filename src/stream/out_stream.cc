#include "stream/out_stream.hh"

#include <algorithm>

#include "base/check.hh"

namespace godwit::stream {

OutStream::OutStream(std::size_t window, std::size_t unsent_limit)
    : unsent_limit_(unsent_limit), ring_(window) {}

MutableBytes OutStream::space(std::uint64_t keep_from) {
  if (ended_) return {};
  const std::uint64_t kept_from = std::min(acked_, keep_from);
  if (kept_from == offered_) ring_.rewind(offered_);
  const std::uint64_t unsent = offered_ - sent();
  const std::uint64_t kept = offered_ - kept_from;
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
  const bool is_again = !again_.empty();
  const auto [from, to] = is_again ? again_.first() : Intervals::Range{sent_, offered_};
  const std::size_t length = std::min<std::uint64_t>(most, to - from);
  const BytesView head = ring_.at(from, length);
  const BytesView tail = ring_.at(from + head.size(), length - head.size());
  FrameHeader header{.kind = FrameKind::kData,
                     .stream = id,
                     .length = static_cast<std::uint32_t>(length),
                     .sequence = from};
  header.checksum = payload_checksum(header, head, tail);
  if (is_again) {
    again_.remove_below(from + length);
    resent_ += length;
  } else {
    sent_ += length;
  }
  return header;
}

void OutStream::append_end(StreamId id, Bytes& out) {
  CHECK(wants_end());
  append_frame(out, {.kind = FrameKind::kEnd, .stream = id, .sequence = offered_}, hash_.digest());
  end_sent_ = true;
}

void OutStream::lost(std::uint64_t from, std::uint64_t to) {
  again_.add(std::max(from, acked_), to);
}

void OutStream::end_lost() { end_sent_ = end_acked_; }

bool OutStream::acknowledge(std::uint64_t delivered, bool ended) {
  if (!received(delivered, ended)) return false;
  acked_ = std::max(acked_, delivered);
  return true;
}

bool OutStream::received(std::uint64_t position, bool ended) {
  if (position > sent_) return false;
  if (ended && (!ended_ || position != offered_)) return false;
  again_.remove_below(position);
  if (ended) {
    acked_ = position;
    end_sent_ = end_acked_ = true;
  }
  return true;
}

}  // namespace godwit::stream
