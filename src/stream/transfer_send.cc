// Transfer, the half that makes bytes for the lane.
//
// small_ holds whole small frames and at its end at most one DATA header; that frame's payload goes
// from the stream's ring to the lane without a copy. Nothing is added to small_ while a payload is
// under way.
#include <algorithm>

#include "base/check.hh"
#include "stream/transfer_parts.hh"

namespace godwit::stream {

BytesView Transfer::peek(Instant now) {
  rate_.pass(now, lane_limited());
  if (!has_lane()) return {};
  waits_for_tokens_ = false;
  if (small_taken_ == small_.size() && payload_.left == 0) schedule(now);
  if (small_taken_ < small_.size()) return BytesView(small_).subspan(small_taken_);
  if (payload_.left == 0) return {};
  const std::size_t allowed =
      is_bulk(*payload_.out) ? bucket_.allowance(payload_.left, now) : payload_.left;
  waits_for_tokens_ = allowed == 0;
  return payload_.out->stream.payload(payload_.position, allowed);
}

void Transfer::advance(std::size_t count) {
  lane_bytes_out_ += count;
  bucket_.spend(count);
  if (small_taken_ < small_.size()) {
    CHECK(count <= small_.size() - small_taken_);
    small_taken_ += count;
    return;
  }
  CHECK(count <= payload_.left);
  payload_.position += count;
  payload_.left -= count;
}

std::size_t Transfer::take(MutableBytes into, Instant now) {
  std::size_t done = 0;
  while (done < into.size()) {
    const BytesView next = peek(now);
    if (next.empty()) break;
    const std::size_t count = std::min(next.size(), into.size() - done);
    std::memcpy(into.data() + done, next.data(), count);
    advance(count);
    done += count;
  }
  return done;
}

void Transfer::append_hello() {
  Hello hello{.role = config_.role, .transfer = config_.id, .incoming = {}};
  for (const auto& in : ins_) {
    hello.incoming.push_back({in->spec.id, in->stream.ended(), in->stream.received()});
  }
  append_frame(small_, {.kind = FrameKind::kHello}, encode(hello));
}

// Most urgent first; what control frames there are, and the header of one DATA frame.
void Transfer::schedule(Instant now) {
  small_.clear();
  small_taken_ = 0;
  if (reset_) {
    append_frame(small_, {.kind = FrameKind::kReset}, as_bytes(*reset_));
    reset_.reset();
  }
  if (failed_ || lane_ != Lane::kUp) return;
  if (pong_) append_frame(small_, {.kind = FrameKind::kPong, .sequence = *pong_});
  pong_.reset();
  if (now - last_ping_ >= kPingInterval) {
    append_frame(small_, {.kind = FrameKind::kPing, .sequence = ++pings_});
    last_ping_ = now;
  }
  append_acks(now);
  append_data(now);
}

void Transfer::append_acks(Instant now) {
  for (auto& in : ins_) {
    if (!in->ack_due || *in->ack_due > now) continue;
    in->ack_due.reset();
    in->acked = in->stream.delivered();
    in->told_end = in->stream.ended();
    append_frame(small_, {.kind = FrameKind::kAck,
                          .stream = in->spec.id,
                          .flags = in->told_end ? kFlagEnded : std::uint16_t{0},
                          .sequence = in->acked});
  }
}

void Transfer::append_data(Instant now) {
  Out* out = next_out();
  if (out == nullptr) return;
  if (out->stream.wants_end()) return out->stream.append_end(out->spec.id, small_);
  const std::size_t limit = frame_limit(*out);
  if (is_bulk(*out) && bucket_.allowance(limit, now) == 0) {
    waits_for_tokens_ = true;
    return;
  }
  payload_.out = out;
  payload_.position = out->stream.sent();
  const FrameHeader header = out->stream.next_data(out->spec.id, limit);
  payload_.left = header.length;
  small_.resize(small_.size() + kFrameHeader);
  encode(header, MutableBytes(small_).last(kFrameHeader));
}

Transfer::Out* Transfer::next_out() {
  Out* best = nullptr;
  for (auto& out : outs_) {
    if (!out->stream.has_data() && !out->stream.wants_end()) continue;
    if (best == nullptr || out->spec.priority < best->spec.priority) best = out.get();
  }
  return best;
}

bool Transfer::is_bulk(const Out& out) const { return out.spec.priority >= Priority::kFinalMemory; }

std::size_t Transfer::frame_limit(const Out& out) const {
  if (!is_bulk(out) || !bucket_.rate()) return kBulkFrame;
  const double seconds_per_frame = std::chrono::duration<double>(kMaxFrameTime).count();
  const auto by_rate =
      static_cast<std::size_t>(bucket_.rate()->bytes_per_second() * seconds_per_frame);
  return std::clamp(by_rate, kLeastBulkFrame, kBulkFrame);
}

}  // namespace godwit::stream
