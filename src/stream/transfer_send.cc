// Transfer, the half that makes bytes for the lane.
//
// A lane's `small` holds whole small frames and at its end at most one DATA header; that frame's
// payload goes from the stream's ring to the lane without a copy. Nothing is added to `small` while
// a payload is under way.
#include <algorithm>

#include "base/check.hh"
#include "stream/transfer_parts.hh"

namespace godwit::stream {

BytesView Transfer::peek(LaneNumber number, Instant now) {
  rate_.pass(now, lane_limited());
  if (!has_lane(number)) return {};
  Lane& lane = *lanes_[number];
  lane.waits_for_tokens = false;
  if (lane.small_taken == lane.small.size() && lane.payload.left == 0) schedule(lane, now);
  if (lane.small_taken < lane.small.size()) return BytesView(lane.small).subspan(lane.small_taken);
  const Lane::Payload& payload = lane.payload;
  if (payload.left == 0) return {};
  const std::size_t allowed =
      is_bulk(*payload.out) ? bucket_.allowance(payload.left, now) : payload.left;
  lane.waits_for_tokens = allowed == 0;
  return payload.out->stream.payload(payload.position, allowed);
}

void Transfer::advance(LaneNumber number, std::size_t count) {
  Lane& lane = *lanes_.at(number);
  lane_bytes_out_ += count;
  bucket_.spend(count);
  if (lane.small_taken < lane.small.size()) {
    CHECK(count <= lane.small.size() - lane.small_taken);
    lane.small_taken += count;
    return;
  }
  CHECK(count <= lane.payload.left);
  lane.payload.position += count;
  lane.payload.left -= count;
}

std::size_t Transfer::take(LaneNumber lane, MutableBytes into, Instant now) {
  std::size_t done = 0;
  while (done < into.size()) {
    const BytesView next = peek(lane, now);
    if (next.empty()) break;
    const std::size_t count = std::min(next.size(), into.size() - done);
    std::memcpy(into.data() + done, next.data(), count);
    advance(lane, count);
    done += count;
  }
  return done;
}

void Transfer::append_hello(LaneNumber number) {
  Hello hello{.role = config_.role, .lane = number, .transfer = config_.id, .incoming = {}};
  for (const auto& in : ins_) {
    hello.incoming.push_back({in->spec.id, in->stream.ended(), in->stream.received()});
  }
  append_frame(lanes_.at(number)->small, {.kind = FrameKind::kHello}, encode(hello));
}

// Most urgent first; what control frames there are, and the header of one DATA frame.
void Transfer::schedule(Lane& lane, Instant now) {
  lane.small.clear();
  lane.small_taken = 0;
  if (reset_) {
    append_frame(lane.small, {.kind = FrameKind::kReset}, as_bytes(*reset_));
    reset_.reset();
  }
  if (failed_ || !lane.greeted) return;
  if (lane.pong) append_frame(lane.small, {.kind = FrameKind::kPong, .sequence = *lane.pong});
  lane.pong.reset();
  if (now - lane.last_ping >= kPingInterval) {
    append_frame(lane.small, {.kind = FrameKind::kPing, .sequence = ++lane.pings});
    lane.last_ping = now;
  }
  append_acks(lane, now);
  append_data(lane, now);
}

void Transfer::append_acks(Lane& lane, Instant now) {
  for (auto& in : ins_) {
    if (!in->ack_due || *in->ack_due > now) continue;
    in->ack_due.reset();
    in->acked = in->stream.delivered();
    in->told_end = in->stream.ended();
    append_frame(lane.small, {.kind = FrameKind::kAck,
                              .stream = in->spec.id,
                              .flags = in->told_end ? kFlagEnded : std::uint16_t{0},
                              .sequence = in->acked});
  }
}

void Transfer::append_data(Lane& lane, Instant now) {
  Out* out = next_out();
  if (out == nullptr) return;
  if (out->stream.wants_end()) {
    lane.sent.push_back({.out = out});
    return out->stream.append_end(out->spec.id, lane.small);
  }
  const std::size_t limit = frame_limit(*out);
  if (is_bulk(*out) && bucket_.allowance(limit, now) == 0) {
    lane.waits_for_tokens = true;
    return;
  }
  const FrameHeader header = out->stream.next_data(out->spec.id, limit);
  lane.payload = {.out = out, .position = header.sequence, .left = header.length};
  lane.sent.push_back({.out = out, .from = header.sequence, .to = header.sequence + header.length});
  lane.small.resize(lane.small.size() + kFrameHeader);
  encode(header, MutableBytes(lane.small).last(kFrameHeader));
}

Transfer::Out* Transfer::next_out() {
  Out* best = nullptr;
  for (auto& out : outs_) {
    if (!out->stream.has_data() && !out->stream.wants_end()) continue;
    const auto rank = [](const Out& each) { return std::pair(each.spec.priority, each.turn); };
    if (best == nullptr || rank(*out) < rank(*best)) best = out.get();
  }
  if (best != nullptr) best->turn = ++turns_;
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
