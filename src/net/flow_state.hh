#pragma once
// What a packet is to the flows, and what it makes of the one that it belongs to.
#include "net/flow.hh"
#include "net/tcp_state.hh"

namespace godwit::net {

struct PacketReading {
  enum class Kind : std::uint8_t {
    flow,       // belongs to one, or may begin one
    fragment,   // not the first: it has no ports
    error,      // ICMP about a packet of a flow, which it quotes
    untracked,  // neighbour discovery, group membership: of the link only
    invalid,
  };
  Kind kind = Kind::invalid;
  bool may_begin = true;  // a flow
  Tuple tuple{};          // of `error`: of the packet that it quotes
  std::optional<TcpSegment> tcp{};
  std::uint8_t icmp_type = 0;
};
PacketReading read_packet(BytesView frame, const IpPacket& packet, std::uint16_t zone);
// In an ICMP error.
std::optional<IpPacket> read_quoted(BytesView frame, const IpPacket& packet);

// Where the port of that side is, or the id of an ICMP query. Zero: it has none.
enum class Side : std::uint8_t { source, destination };
std::size_t port_at(BytesView frame, const IpPacket& packet, Side side);

// Of the flow's first packet.
bool may_begin(const PacketReading& reading, bool picks_up);
void begin(Flow& flow, const std::optional<TcpSegment>& tcp, const FlowTimeouts& timeouts,
           Instant now);
// Of a later one.
TcpVerdict advance(Flow& flow, Way way, const std::optional<TcpSegment>& tcp,
                   const FlowTimeouts& timeouts, Instant now);

}  // namespace godwit::net
