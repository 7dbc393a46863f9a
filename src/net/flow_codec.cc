#include "net/flow_codec.hh"

#include "net/filter.hh"
#include "net/packet.hh"
#include "net/state.hh"
#include "net/tcp_state.hh"

namespace godwit::net {
namespace {

enum Flag : std::uint8_t {
  kIp4 = 1,           // addresses have 4 bytes
  kReplyFollows = 2,  // it is not the inverse
  kReplied = 4,
  kRetryFollows = 8,
};
enum SideFlag : std::uint8_t { kSent = 1, kAcknowledged = 2, kScaled = 4, kEnded = 8 };
constexpr std::uint8_t kFlags = 15, kSideFlags = 15;

bool is_ip4(const Tuple& tuple) { return tuple.source.is4() && tuple.destination.is4(); }

void write_ip(Writer& to, Ip ip, bool is_short) {
  if (is_short) {
    to.u32(ip.as4());
  } else {
    to.u64(ip.high).u64(ip.low);
  }
}
Ip read_ip(Reader& from, bool is_short) {
  if (is_short) return Ip::of4(from.u32());
  const std::uint64_t high = from.u64();
  return {high, from.u64()};
}

void write_ends(Writer& to, const Tuple& tuple, bool is_short) {
  write_ip(to, tuple.source, is_short);
  write_ip(to, tuple.destination, is_short);
  to.u16(tuple.source_port).u16(tuple.destination_port);
}
Tuple read_ends(Reader& from, bool is_short, std::uint8_t protocol, std::uint16_t zone) {
  Tuple tuple{.zone = zone, .protocol = protocol};
  tuple.source = read_ip(from, is_short);
  tuple.destination = read_ip(from, is_short);
  tuple.source_port = from.u16();
  tuple.destination_port = from.u16();
  return tuple;
}

void write_head(Writer& to, std::uint8_t flags, const Tuple& tuple) {
  to.u8(flags).u8(tuple.protocol).u16(tuple.zone);
  write_ends(to, tuple, (flags & kIp4) != 0);
}
struct Head {
  std::uint8_t flags = 0;
  Tuple tuple{};
};
Head read_head(Reader& from) {
  const std::uint8_t flags = from.u8(), protocol = from.u8();
  const std::uint16_t zone = from.u16();
  return {.flags = flags, .tuple = read_ends(from, (flags & kIp4) != 0, protocol, zone)};
}

void write_side(Writer& to, const TcpSide& side) {
  const int flags = (side.has_sent ? kSent : 0) | (side.has_acknowledged ? kAcknowledged : 0) |
                    (side.has_scale ? kScaled : 0) | (side.has_ended ? kEnded : 0);
  to.u32(side.end).u32(side.acknowledged).u32(side.window).u8(side.scale);
  to.u8(static_cast<std::uint8_t>(flags));
}
TcpSide read_side(Reader& from) {
  TcpSide side{.end = from.u32()};
  side.acknowledged = from.u32();
  side.window = from.u32();
  side.scale = from.u8();
  const std::uint8_t flags = from.u8();
  side.has_sent = (flags & kSent) != 0;
  side.has_acknowledged = (flags & kAcknowledged) != 0;
  side.has_scale = (flags & kScaled) != 0;
  side.has_ended = (flags & kEnded) != 0;
  if (side.scale > kMostScale || (flags & ~kSideFlags) != 0) from.fail();
  return side;
}

// Rewriting keeps the family of each end, so that a packet keeps its length.
bool are_of_one_flow(const Tuple& original, const Tuple& reply) {
  return original != reply && original != original.inverse() &&
         original.source.is4() == reply.destination.is4() &&
         original.destination.is4() == reply.source.is4();
}
bool is_port(PortIndex port) { return port < kMostPorts || port == kItself; }
bool fits(FlowState state, std::uint8_t protocol) {
  if (protocol == kTcp) return state >= FlowState::syn_sent && state <= FlowState::closed;
  return state <= FlowState::stream;
}

}  // namespace

void write_tuple(Writer& to, const Tuple& tuple) {
  write_head(to, is_ip4(tuple) ? kIp4 : 0, tuple);
}

std::optional<Tuple> read_tuple(Reader& from) {
  const Head head = read_head(from);
  if (!from.ok() || (head.flags & ~kIp4) != 0) return std::nullopt;
  return head.tuple;
}

void write_flow(Writer& to, const Flow& flow, Instant now) {
  const auto& [original, reply] = flow.tuples;
  const bool is_short = is_ip4(original) && is_ip4(reply);
  const bool has_retry = flow.retry != TcpSide{};
  const int flags = (is_short ? kIp4 : 0) | (flow.is_translated ? kReplyFollows : 0) |
                    (flow.is_replied ? kReplied : 0) | (has_retry ? kRetryFollows : 0);
  write_head(to, static_cast<std::uint8_t>(flags), original);
  if (flow.is_translated) write_ends(to, reply, is_short);
  to.u8(static_cast<std::uint8_t>(flow.state)).u16(flow.in).u16(flow.out);
  write_ns(to, now - flow.began);
  write_ns(to, flow.ends - now);
  for (const FlowCounters& sent : flow.sent) to.u64(sent.packets).u64(sent.bytes);
  if (original.protocol != kTcp) return;
  for (const TcpSide& side : flow.tcp) write_side(to, side);
  if (has_retry) write_side(to, flow.retry);
}

std::optional<Flow> read_flow(Reader& from, Instant now) {
  const auto [flags, original] = read_head(from);
  Flow flow{.tuples = {original, original.inverse()}};
  if ((flags & kReplyFollows) != 0) {
    flow.tuples[1] = read_ends(from, (flags & kIp4) != 0, original.protocol, original.zone);
  }
  flow.is_translated = flow.tuples[1] != original.inverse();
  flow.is_replied = (flags & kReplied) != 0;
  flow.state = static_cast<FlowState>(from.u8());
  flow.in = from.u16();
  flow.out = from.u16();
  flow.began = now - read_ns(from);
  flow.ends = now + read_ns(from);
  for (FlowCounters& sent : flow.sent) {
    sent.packets = from.u64();
    sent.bytes = from.u64();
  }
  if (original.protocol == kTcp) {
    for (TcpSide& side : flow.tcp) side = read_side(from);
    if ((flags & kRetryFollows) != 0) flow.retry = read_side(from);
  } else if ((flags & kRetryFollows) != 0) {
    return std::nullopt;
  }
  const bool is_possible =
      from.ok() && (flags & ~kFlags) == 0 && fits(flow.state, original.protocol) &&
      are_of_one_flow(flow.tuples[0], flow.tuples[1]) && is_port(flow.in) && is_port(flow.out);
  return is_possible ? std::optional(flow) : std::nullopt;
}

}  // namespace godwit::net
