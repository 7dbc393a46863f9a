#pragma once
// Flows: what one packet has to do with those before it (as Linux's conntrack sees them). All here
// are values, which can be listed, written and read; FlowTable keeps them.
//
//   client ── tuples[original] ──▶ router ── inverse(tuples[reply]) ──▶ server
//          ◀─ inverse(tuples[original]) ──      ◀── tuples[reply] ──
//
// Where nothing is translated, one is the inverse of the other.
#include <array>
#include <cstdint>
#include <string>

#include "base/ip.hh"
#include "base/units.hh"
#include "net/component.hh"

namespace godwit::net {

// What all packets of one way of a flow have in common, as they arrive. Of an ICMP query the id is
// the port of who asks; the other's is which query it is.
struct Tuple {
  Ip source{}, destination{};
  std::uint16_t source_port = 0, destination_port = 0;  // zero: the protocol has none
  std::uint16_t zone = 0;  // keeps equal addresses of different networks apart
  std::uint8_t protocol = 0;
  std::uint8_t unused = 0;  // no padding: it is hashed as words

  bool operator==(const Tuple&) const = default;
  Tuple inverse() const {
    return {destination, source, destination_port, source_port, zone, protocol};
  }
  std::string text() const;  // "tcp 10.7.0.2:4000 -> 192.0.2.1:80"
};

enum class Way : std::uint8_t { original, reply };
constexpr std::size_t index_of(Way way) { return static_cast<std::size_t>(way); }
constexpr Way other(Way way) { return way == Way::original ? Way::reply : Way::original; }

// unreplied ─▶ replied ─▶ stream, and of TCP:
// syn_sent ─▶ syn_received ─▶ established ─▶ closing ─▶ time_wait, or closed by RST
enum class FlowState : std::uint8_t {
  unreplied,
  replied,
  stream,  // both ways for a while (UDP)
  syn_sent,
  syn_received,
  established,
  closing,    // one has ended its half
  time_wait,  // both have, and know of each other
  closed,     // by RST
};
std::string_view to_text(FlowState state);

// What one end of a TCP flow has said. Sequence numbers wrap.
struct TcpSide {
  std::uint32_t end = 0;           // behind the last byte that it sent
  std::uint32_t acknowledged = 0;  // the highest
  std::uint32_t window = 0;        // bytes, the most that it offered
  std::uint8_t scale = 0;
  bool has_sent = false, has_acknowledged = false, has_scale = false, has_ended = false;
  bool operator==(const TcpSide&) const = default;
};

struct FlowCounters {
  std::uint64_t packets = 0, bytes = 0;  // of IP
  bool operator==(const FlowCounters&) const = default;
};

struct Flow {
  std::array<Tuple, 2> tuples{};
  Instant began{}, ends{};
  std::array<FlowCounters, 2> sent{};
  std::array<TcpSide, 2> tcp{};
  TcpSide retry{};            // a SYN of who began it, while there is a flow: it may have restarted
  PortIndex in = 0, out = 0;  // of its first packet
  FlowState state = FlowState::unreplied;
  bool is_replied = false;
  bool is_translated = false;
  bool operator==(const Flow&) const = default;

  const Tuple& tuple(Way way) const { return tuples[index_of(way)]; }
  // As packets of this way leave.
  Tuple leaving(Way way) const { return tuple(other(way)).inverse(); }
};

// As Linux has them, but for `closing`, which is of RFC 5382, REQ-5.
struct FlowTimeouts {
  Nanoseconds syn_sent = seconds(120);
  Nanoseconds syn_received = seconds(60);
  Nanoseconds established = seconds(432'000);
  Nanoseconds closing = seconds(240);
  Nanoseconds time_wait = seconds(120);
  Nanoseconds closed = seconds(10);
  Nanoseconds picked_up = seconds(300);  // TCP of which only one way was seen
  Nanoseconds udp = seconds(30);
  Nanoseconds udp_stream = seconds(120);
  Nanoseconds icmp = seconds(30);
  Nanoseconds other = seconds(600);
  bool operator==(const FlowTimeouts&) const = default;
};

}  // namespace godwit::net
