// Transfer, the half that meets bytes from the lane.
#include <algorithm>

#include "stream/transfer_parts.hh"

namespace godwit::stream {
namespace {

// The peer's words for a log: nothing in them may act on a terminal.
std::string printable(std::string_view text) {
  std::string out(text);
  std::ranges::replace_if(out, [](char c) { return c < ' ' || c > '~'; }, '?');
  return out;
}

}  // namespace

std::optional<LaneFault> Transfer::feed(LaneNumber number, BytesView from_lane, Instant now) {
  rate_.pass(now, lane_limited());
  if (!has_lane(number)) return std::nullopt;  // the end of a lane that was given up
  Lane& lane = *lanes_[number];
  lane_bytes_in_ += from_lane.size();
  if (!from_lane.empty()) lane.last_heard = now;
  while (!failed_) {
    const FramePart part = lane.reader.next(from_lane);
    if (part.kind == FramePart::Kind::kNothing) break;
    if (part.kind == FramePart::Kind::kBad) {
      return lane_fault(number, now, "a frame with a bad header or checksum");
    }
    if (const auto handled = handle(lane, part, now); !handled) {
      return lane_fault(number, now, handled.error().text);
    }
  }
  return std::nullopt;
}

Result<> Transfer::handle(Lane& lane, const FramePart& part, Instant now) {
  const FrameHeader& header = part.header;
  if (lane.greeted == (header.kind == FrameKind::kHello)) {
    return fail("HELLO missing or repeated");
  }
  switch (header.kind) {
    case FrameKind::kHello:
      return handle_hello(lane, part, now);
    case FrameKind::kData:
      return handle_data(part, now);
    case FrameKind::kAck:
      return handle_ack(header);
    case FrameKind::kEnd:
      return handle_end(part, now);
    case FrameKind::kReset:
      give_up({fmt::format("transfer {}: given up by the peer: {}", config_.id.text(),
                           printable(as_text(part.bytes)))},
              false);
      return {};
    case FrameKind::kPing:
      lane.pong = header.sequence;
      return {};
    case FrameKind::kPong:
      if (header.sequence == lane.pings) lane_rtt_ = now - lane.last_ping;
      return {};
  }
  return fail("an unknown frame");
}

// The peer may not know of our last acknowledgements, nor what came by other lanes since it wrote
// this; but a target that was reached by a new lane knows all that it had acknowledged before.
Result<> Transfer::handle_hello(Lane& lane, const FramePart& part, Instant now) {
  const Result<Hello> hello = decode_hello(part.bytes);
  if (!hello) return std::unexpected(hello.error());
  if (hello->transfer != config_.id) return fail("the lane belongs to another transfer");
  if (hello->role == config_.role) return fail("the peer claims this side's role");
  if (hello->incoming.size() != outs_.size()) return fail("the peer expects other streams");
  for (const Hello::Incoming& each : hello->incoming) {
    const auto found =
        std::ranges::find_if(outs_, [&](auto& o) { return o->spec.id == each.stream; });
    if (found == outs_.end()) return fail("the peer expects an unknown stream");
    Out& out = **found;
    const std::uint64_t before = lane.acked_before[std::size_t(found - outs_.begin())];
    const bool has_less = config_.role == Role::kSource && each.next_expected < before;
    if (has_less || !out.stream.received(each.next_expected, each.ended)) {
      give_up(
          {fmt::format("transfer {}: the peer wants stream {} from byte {}, this side can go on "
                       "from {} only: the peer lost its state; start the migration again",
                       config_.id.text(), each.stream, each.next_expected, out.stream.acked())},
          true);
      return {};
    }
    if (each.ended && !std::exchange(out.told, true)) sink_.end_acknowledged(each.stream);
  }
  lane.greeted = true;
  lane.last_ping = now - kPingInterval;     // the first goes at once and finds the RTT
  for (auto& in : ins_) in->ack_due = now;  // the peer may not have heard the last ones
  return {};
}

Result<> Transfer::handle_data(const FramePart& part, Instant now) {
  In* in = find_in(part.header.stream);
  if (in == nullptr) return fail("DATA for an unknown stream");
  const auto verdict = in->stream.data(part, [&](BytesView bytes) { return consume(*in, bytes); });
  return judge(*in, verdict, now);
}

Result<> Transfer::handle_end(const FramePart& part, Instant now) {
  In* in = find_in(part.header.stream);
  if (in == nullptr) return fail("END of an unknown stream");
  in->told_end = false;
  return judge(*in, in->stream.end(part.header.sequence, part.bytes), now);
}

Result<> Transfer::handle_ack(const FrameHeader& header) {
  const auto found =
      std::ranges::find_if(outs_, [&](auto& o) { return o->spec.id == header.stream; });
  if (found == outs_.end()) return fail("ACK for an unknown stream");
  Out& out = **found;
  const std::uint64_t before = out.stream.acked();
  if (!out.stream.acknowledge(header.sequence, (header.flags & kFlagEnded) != 0)) {
    return fail("ACK of bytes that were not sent");
  }
  rate_.acknowledged(out.stream.acked() - before);
  for (auto& lane : lanes_) {
    while (lane && !lane->sent.empty() && lane->sent.front().is_acked()) lane->sent.pop_front();
  }
  if (out.stream.end_acked() && !std::exchange(out.told, true)) {
    sink_.end_acknowledged(out.spec.id);
  }
  return {};
}

std::size_t Transfer::consume(In& in, BytesView bytes) {
  if (in.blocked) return 0;
  const std::size_t taken = sink_.deliver(in.spec.id, bytes);
  in.blocked = taken < bytes.size();
  return taken;
}

void Transfer::consumer_ready(StreamId stream, Instant now) {
  In* in = find_in(stream);
  if (in == nullptr || failed_) return;
  in->blocked = false;
  in->stream.deliver([&](BytesView bytes) { return consume(*in, bytes); });
  after_delivery(*in, now);
}

Result<> Transfer::judge(In& in, InStream::Verdict verdict, Instant now) {
  switch (verdict) {
    case InStream::Verdict::kGood:
      after_delivery(in, now);
      return {};
    case InStream::Verdict::kLaneFault:
      return fail("stream {}: bytes beyond the window or the end", in.spec.id);
    case InStream::Verdict::kCorrupt:
      give_up({fmt::format("transfer {}: checksum mismatch in stream {} near byte {}: what arrived "
                           "is not what was sent; check the memory of both hosts",
                           config_.id.text(), in.spec.id, in.stream.received())},
              true);
      return {};
  }
  return {};
}

void Transfer::after_delivery(In& in, Instant now) {
  if (in.stream.reached_end()) {
    if (in.stream.verify_end() != InStream::Verdict::kGood) {
      give_up({fmt::format("transfer {}: checksum mismatch over the {} bytes of stream {}: the "
                           "consumer did not get what the writer wrote",
                           config_.id.text(), in.stream.delivered(), in.spec.id)},
              true);
      return;
    }
    sink_.stream_ended(in.spec.id);
  }
  const bool news = in.stream.delivered() > in.acked || (in.stream.ended() && !in.told_end);
  if (news && !in.ack_due) {
    const bool now_at_once = in.stream.ended() || in.stream.delivered() - in.acked >= kAckEvery;
    in.ack_due = now_at_once ? now : now + kAckDelay;
  } else if (news && in.stream.delivered() - in.acked >= kAckEvery) {
    in.ack_due = std::min(*in.ack_due, now);
  }
}

LaneFault Transfer::lane_fault(LaneNumber lane, Instant now, const std::string& what) {
  lane_down(lane, now);
  return {.lane = lane,
          .why = {fmt::format("transfer {}: lane closed: {}", config_.id.text(), what)}};
}

}  // namespace godwit::stream
