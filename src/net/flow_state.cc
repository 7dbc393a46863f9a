#include "net/flow_state.hh"

namespace godwit::net {
namespace {

constexpr std::size_t kIcmpBytes = 8;
constexpr std::size_t kQuotedBytes = 8;  // of layer 4, at least (RFC 792)
constexpr std::size_t kIcmpIdAt = 4;
constexpr Nanoseconds kUdpIsStream = seconds(2);  // as Linux

enum class IcmpKind : std::uint8_t { query, answer, error, of_link, unknown };
struct IcmpTraits {
  IcmpKind kind = IcmpKind::unknown;
  std::uint16_t query = 0;  // which: they may have equal ids
};

IcmpTraits traits4(std::uint8_t type) {
  switch (type) {
    case 8:  // echo, timestamp, information, mask
    case 13:
    case 15:
    case 17:
      return {IcmpKind::query, type};
    case 0:
      return {IcmpKind::answer, 8};
    case 14:
    case 16:
    case 18:
      return {IcmpKind::answer, static_cast<std::uint16_t>(type - 1)};
    case 3:  // unreachable, source quench, redirect, time exceeded, parameter problem
    case 4:
    case 5:
    case 11:
    case 12:
      return {IcmpKind::error, 0};
    default:
      return {};
  }
}

IcmpTraits traits6(std::uint8_t type) {
  if (type >= 1 && type <= 4) return {IcmpKind::error, 0};
  if (type == 128) return {IcmpKind::query, 128};
  if (type == 129) return {IcmpKind::answer, 128};
  // Listeners (RFC 2710, RFC 3810), neighbours (RFC 4861).
  if ((type >= 130 && type <= 137) || type == 143) return {IcmpKind::of_link, 0};
  return {};
}

bool is_icmp(const IpPacket& packet) { return packet.protocol == (packet.is_ip4 ? kIcmp : kIcmp6); }
IcmpTraits icmp_of(BytesView frame, const IpPacket& packet) {
  const auto type = std::to_integer<std::uint8_t>(frame[packet.l4]);
  return packet.is_ip4 ? traits4(type) : traits6(type);
}

// Of a packet with `bytes` of its layer 4, or of one that is quoted with so many.
std::optional<Tuple> read_tuple(BytesView frame, const IpPacket& packet, std::uint16_t zone) {
  Tuple tuple{.source = packet.source,
              .destination = packet.destination,
              .zone = zone,
              .protocol = packet.protocol};
  if (packet.protocol == kTcp || packet.protocol == kUdp) {
    if (!packet.has_l4(frame, kQuotedBytes)) return std::nullopt;
    tuple.source_port = from_big_endian<std::uint16_t>(&frame[packet.l4]);
    tuple.destination_port = from_big_endian<std::uint16_t>(&frame[packet.l4 + 2]);
  } else if (is_icmp(packet)) {
    if (!packet.has_l4(frame, kIcmpBytes)) return std::nullopt;
    const IcmpTraits traits = icmp_of(frame, packet);
    const auto id = from_big_endian<std::uint16_t>(&frame[packet.l4 + kIcmpIdAt]);
    const bool is_query = traits.kind == IcmpKind::query;
    if (!is_query && traits.kind != IcmpKind::answer) return std::nullopt;
    tuple.source_port = is_query ? id : traits.query;
    tuple.destination_port = is_query ? traits.query : id;
  }
  return tuple;
}

// Damaged ones are told by their checksum, which otherwise is mended when what they quote changes.
bool is_sound_error(BytesView frame, const IpPacket& packet) {
  if (packet.is_fragment()) return false;
  const auto vnet = wire::read_vnet(frame.first<wire::kVnetBytes>());
  if ((vnet.flags & wire::kVnetNeedsChecksum) != 0) return true;
  const std::size_t length = packet.end - packet.l4;
  const std::uint64_t pseudo =
      packet.is_ip4 ? 0 : pseudo_sum(packet.source, packet.destination, packet.protocol, length);
  return checksum_of(frame.subspan(packet.l4, length), pseudo) == 0;
}

void read_error(BytesView frame, const IpPacket& packet, PacketReading& reading) {
  if (!is_sound_error(frame, packet)) return;
  const BytesView whole = frame.first(packet.end);
  const auto quoted = read_quoted(frame, packet);
  if (!quoted || quoted->is_ip4 != packet.is_ip4) return;
  const auto tuple = read_tuple(whole, *quoted, reading.tuple.zone);
  if (!tuple) return;
  reading.kind = PacketReading::Kind::error;
  reading.tuple = *tuple;
}

Nanoseconds tcp_timeout(const Flow& flow, const FlowTimeouts& timeouts) {
  switch (flow.state) {
    case FlowState::syn_sent:
      return timeouts.syn_sent;
    case FlowState::syn_received:
      return timeouts.syn_received;
    case FlowState::closing:
      return timeouts.closing;
    case FlowState::time_wait:
      return timeouts.time_wait;
    case FlowState::closed:
      return timeouts.closed;
    default:
      return flow.is_replied ? timeouts.established : timeouts.picked_up;
  }
}

Nanoseconds timeout_of(const Flow& flow, const FlowTimeouts& timeouts) {
  switch (flow.tuples[0].protocol) {
    case kTcp:
      return tcp_timeout(flow, timeouts);
    case kUdp:
      return flow.state == FlowState::stream ? timeouts.udp_stream : timeouts.udp;
    case kIcmp:
    case kIcmp6:
      return timeouts.icmp;
    default:
      return timeouts.other;
  }
}

}  // namespace

PacketReading read_packet(BytesView frame, const IpPacket& packet, std::uint16_t zone) {
  using enum PacketReading::Kind;
  PacketReading reading;
  reading.tuple.zone = zone;
  if (packet.fragment_offset != 0) {
    // One that lies over the ports of the first would change them (RFC 3128).
    const bool is_tiny = packet.protocol == kTcp && packet.fragment_offset < kTcpBytes;
    if (!is_tiny) reading.kind = fragment;
    return reading;
  }
  if (is_icmp(packet)) {
    if (!packet.has_l4(frame, kIcmpBytes)) return reading;
    reading.icmp_type = std::to_integer<std::uint8_t>(frame[packet.l4]);
    const IcmpKind kind = icmp_of(frame, packet).kind;
    if (kind == IcmpKind::of_link) reading.kind = untracked;
    if (kind == IcmpKind::error) read_error(frame, packet, reading);
    reading.may_begin = kind == IcmpKind::query;
  }
  if (packet.protocol == kTcp) {
    reading.tcp = read_tcp(frame, packet);
    if (!reading.tcp) return reading;
  }
  if (reading.kind != invalid) return reading;
  const auto tuple = read_tuple(frame, packet, zone);
  if (!tuple || *tuple == tuple->inverse()) return reading;
  reading.kind = flow;
  reading.tuple = *tuple;
  return reading;
}

std::optional<IpPacket> read_quoted(BytesView frame, const IpPacket& packet) {
  return read_ip(frame.first(packet.end), packet.l4 + kIcmpBytes, true);
}

std::size_t port_at(BytesView frame, const IpPacket& packet, Side side) {
  if (!packet.has_l4(frame, kQuotedBytes)) return 0;
  if (packet.protocol == kTcp || packet.protocol == kUdp) {
    return packet.l4 + (side == Side::source ? 0 : 2);
  }
  if (!is_icmp(packet)) return 0;
  const IcmpKind wanted = side == Side::source ? IcmpKind::query : IcmpKind::answer;
  return icmp_of(frame, packet).kind == wanted ? packet.l4 + kIcmpIdAt : 0;
}

bool may_begin(const PacketReading& reading, bool picks_up) {
  return reading.tcp ? begins(*reading.tcp, picks_up) : reading.may_begin;
}

void begin(Flow& flow, const std::optional<TcpSegment>& tcp, const FlowTimeouts& timeouts,
           Instant now) {
  if (tcp) begin(flow, *tcp);
  flow.began = now;
  flow.ends = now + timeout_of(flow, timeouts);
}

TcpVerdict advance(Flow& flow, Way way, const std::optional<TcpSegment>& tcp,
                   const FlowTimeouts& timeouts, Instant now) {
  if (tcp) {
    const TcpVerdict verdict = advance(flow, way, *tcp);
    if (tcp->has(kRst) && !flow.is_replied && verdict != TcpVerdict::invalid) {
      flow.ends = now;  // it never came about
      return TcpVerdict::passes;
    }
    if (verdict != TcpVerdict::advances) return verdict;
    if (way == Way::reply) flow.is_replied = true;
  } else {
    if (way == Way::reply) flow.is_replied = true;
    const bool is_stream =
        flow.is_replied && flow.tuples[0].protocol == kUdp && now - flow.began > kUdpIsStream;
    flow.state = is_stream         ? FlowState::stream
                 : flow.is_replied ? FlowState::replied
                                   : FlowState::unreplied;
  }
  flow.ends = now + timeout_of(flow, timeouts);
  return TcpVerdict::advances;
}

}  // namespace godwit::net
