#include "net/tcp_state.hh"

#include <algorithm>

namespace godwit::net {
namespace {

constexpr std::uint32_t kLeastAckWindow = 66'000;  // as Linux: what may be acknowledged again
enum Option : std::uint8_t { kEnd = 0, kNothing = 1, kScale = 3 };

bool is_before(std::uint32_t a, std::uint32_t b) { return static_cast<std::int32_t>(a - b) < 0; }

bool are_sane(std::uint8_t flags) {
  switch (flags & (kSyn | kAck | kFin | kRst | kUrgent)) {
    case kSyn:
    case kSyn | kUrgent:
    case kSyn | kAck:
    case kRst:
    case kRst | kAck:
    case kFin | kAck:
    case kFin | kAck | kUrgent:
    case kAck:
    case kAck | kUrgent:
      return true;
    default:
      return false;
  }
}

std::optional<std::uint8_t> scale_of(BytesView options) {
  for (std::size_t at = 0; at < options.size();) {
    const auto kind = std::to_integer<std::uint8_t>(options[at]);
    if (kind == kEnd) break;
    if (kind == kNothing) {
      ++at;
      continue;
    }
    if (at + 2 > options.size()) break;
    const auto length = std::to_integer<std::size_t>(options[at + 1]);
    if (length < 2 || at + length > options.size()) break;
    if (kind == kScale && length == 3) {
      return std::min(std::to_integer<std::uint8_t>(options[at + 2]), kMostScale);
    }
    at += length;
  }
  return std::nullopt;
}

// Van Rooij, "Real Stateful TCP Packet Filtering in IP Filter" (2001): what the other offered, what
// it may have lost; no more acknowledged than was sent.
bool is_in_window(const TcpSide& sender, const TcpSide& receiver, const TcpSegment& segment) {
  if (receiver.has_acknowledged) {
    if (is_before(receiver.acknowledged + receiver.window, segment.sequence)) return false;
    if (is_before(segment.end(), receiver.acknowledged - receiver.window)) return false;
  }
  if (!segment.has(kAck) || !receiver.has_sent) return true;
  const std::uint32_t back = std::max(sender.window, kLeastAckWindow);
  return !is_before(receiver.end, segment.acknowledged) &&
         !is_before(segment.acknowledged, receiver.end - back);
}

void heard(TcpSide& sender, const TcpSegment& segment) {
  const std::uint32_t window =
      segment.has(kSyn) ? segment.window : std::uint32_t{segment.window} << sender.scale;
  sender.window = std::max({sender.window, window, 1U});
  if (!sender.has_sent || is_before(sender.end, segment.end())) sender.end = segment.end();
  sender.has_sent = true;
  if (!segment.has(kAck)) return;
  if (!sender.has_acknowledged || is_before(sender.acknowledged, segment.acknowledged)) {
    sender.acknowledged = segment.acknowledged;
  }
  sender.has_acknowledged = true;
}

void greeted(TcpSide& side, const TcpSegment& segment) {
  side = {.scale = segment.scale.value_or(0), .has_scale = segment.scale.has_value()};
  heard(side, segment);
}

TcpVerdict take_syn(Flow& flow, Way way, const TcpSegment& segment) {
  const bool is_original = way == Way::original;
  switch (flow.state) {
    case FlowState::syn_sent:
      greeted(flow.tcp[index_of(way)], segment);
      if (!is_original) flow.state = FlowState::syn_received;  // both at once
      return TcpVerdict::advances;
    case FlowState::time_wait:
      return TcpVerdict::reopens;
    case FlowState::closed:
      return is_original ? TcpVerdict::reopens : TcpVerdict::invalid;
    default:  // the other end will say what it thinks of it
      if (is_original) greeted(flow.retry, segment);
      return is_original ? TcpVerdict::passes : TcpVerdict::invalid;
  }
}

bool answers_retry(const Flow& flow, Way way, const TcpSegment& segment) {
  return way == Way::reply && flow.retry.has_sent && segment.has(kAck) &&
         segment.acknowledged == flow.retry.end;
}

TcpVerdict take_syn_ack(Flow& flow, Way way, const TcpSegment& segment) {
  if (way == Way::original) {
    return flow.state == FlowState::syn_received ? TcpVerdict::advances : TcpVerdict::invalid;
  }
  if (answers_retry(flow, way, segment)) {
    flow.tcp = {flow.retry, TcpSide{}};
    flow.retry = {};
    flow.state = FlowState::syn_sent;
  }
  if (flow.state != FlowState::syn_sent) return TcpVerdict::passes;
  greeted(flow.tcp[index_of(way)], segment);
  if (!flow.tcp[0].has_scale || !flow.tcp[1].has_scale) flow.tcp[0].scale = flow.tcp[1].scale = 0;
  flow.state = FlowState::syn_received;
  return TcpVerdict::advances;
}

// RFC 5961, 3.2: one that is in the window, but not where the other waits, gets an answer.
TcpVerdict take_rst(Flow& flow, Way way, const TcpSegment& segment) {
  const TcpSide& sender = flow.tcp[index_of(way)];
  const TcpSide& receiver = flow.tcp[index_of(other(way))];
  const bool is_early = flow.state == FlowState::syn_sent || flow.state == FlowState::syn_received;
  bool closes = false;
  if (answers_retry(flow, way, segment)) {
    closes = true;
  } else if (receiver.has_acknowledged) {
    const std::uint32_t expected = receiver.acknowledged;
    if (is_before(segment.sequence, expected) && !(is_early && segment.sequence == 0)) {
      return TcpVerdict::invalid;
    }
    if (is_before(expected + receiver.window, segment.sequence)) return TcpVerdict::invalid;
    closes = is_early || segment.sequence == expected || segment.sequence == sender.end;
  } else if (is_early && way == Way::reply) {  // the answer to a SYN
    closes = segment.has(kAck) && segment.acknowledged == receiver.end;
    if (!closes) return TcpVerdict::invalid;
  } else {
    closes = sender.has_sent && segment.sequence == sender.end;
  }
  if (!closes) return TcpVerdict::passes;
  flow.state = FlowState::closed;
  return TcpVerdict::advances;
}

bool is_over(const Flow& flow) {
  const auto& [a, b] = flow.tcp;
  return a.has_ended && b.has_ended && !is_before(a.acknowledged, b.end) &&
         !is_before(b.acknowledged, a.end);
}

TcpVerdict take_ack(Flow& flow, Way way, const TcpSegment& segment) {
  if (flow.state == FlowState::syn_sent) {
    const bool may_be_old = way == Way::reply && !segment.has(kFin);
    return may_be_old ? TcpVerdict::passes : TcpVerdict::invalid;
  }
  TcpSide& sender = flow.tcp[index_of(way)];
  const TcpSide& receiver = flow.tcp[index_of(other(way))];
  if (!is_in_window(sender, receiver, segment)) return TcpVerdict::passes;
  heard(sender, segment);
  if (flow.state == FlowState::time_wait || flow.state == FlowState::closed) {
    return TcpVerdict::advances;
  }
  if (segment.has(kFin)) {
    sender.has_ended = true;
    flow.state = FlowState::closing;
  } else if (flow.state == FlowState::syn_received && way == Way::original) {
    flow.state = FlowState::established;
  }
  if (is_over(flow)) flow.state = FlowState::time_wait;
  return TcpVerdict::advances;
}

}  // namespace

std::optional<TcpSegment> read_tcp(BytesView frame, const IpPacket& packet) {
  if (!packet.has_l4(frame, kTcpBytes)) return std::nullopt;
  const std::byte* at = &frame[packet.l4];
  TcpSegment segment{.sequence = from_big_endian<std::uint32_t>(at + 4),
                     .acknowledged = from_big_endian<std::uint32_t>(at + 8),
                     .window = from_big_endian<std::uint16_t>(at + 14),
                     .flags = std::to_integer<std::uint8_t>(at[13] & std::byte{0x3f})};
  const auto header = std::to_integer<std::size_t>(at[12] >> 4) * 4;
  const bool has_header = header >= kTcpBytes && packet.has_l4(frame, header);
  if (!has_header || !are_sane(segment.flags)) return std::nullopt;
  segment.length = static_cast<std::uint32_t>(packet.end - packet.l4 - header);
  if (segment.has(kFin)) ++segment.length;
  if (segment.has(kSyn)) {
    ++segment.length;
    segment.scale = scale_of(frame.subspan(packet.l4 + kTcpBytes, header - kTcpBytes));
  }
  return segment;
}

bool begins(const TcpSegment& segment, bool picks_up) {
  if (segment.has(kSyn)) return !segment.has(kAck);
  return picks_up && segment.has(kAck) && !segment.has(kFin) && !segment.has(kRst);
}

void begin(Flow& flow, const TcpSegment& segment) {
  if (segment.has(kSyn)) {
    flow.state = FlowState::syn_sent;
    greeted(flow.tcp[0], segment);
    return;
  }
  flow.state = FlowState::established;
  for (TcpSide& side : flow.tcp) side.scale = kMostScale;  // nobody knows
  heard(flow.tcp[0], segment);
}

TcpVerdict advance(Flow& flow, Way way, const TcpSegment& segment) {
  if (segment.has(kRst)) return take_rst(flow, way, segment);
  if (segment.has(kSyn)) {
    return segment.has(kAck) ? take_syn_ack(flow, way, segment) : take_syn(flow, way, segment);
  }
  return take_ack(flow, way, segment);
}

}  // namespace godwit::net
