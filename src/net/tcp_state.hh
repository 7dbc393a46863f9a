#pragma once
// TCP as one in the middle sees it: which segments a flow may have, and what they make of it. As
// Linux's conntrack with nf_conntrack_tcp_be_liberal: of segments outside the window only RST is
// refused, as that would end the flow; the others change nothing.
//
//              SYN            SYN+ACK             ACK              FIN          FIN, both known
//   (none) ─────────▶ syn_sent ──▶ syn_received ──▶ established ──────▶ closing ──▶ time_wait
//      │ ACK, if flows are picked up                  ▲      any state ── RST ──▶ closed
//      └─────────────────────────────────────────────┘      SYN in time_wait, closed: a new flow
#include <optional>

#include "net/flow.hh"
#include "net/packet.hh"

namespace godwit::net {

enum TcpFlag : std::uint8_t { kFin = 1, kSyn = 2, kRst = 4, kPush = 8, kAck = 16, kUrgent = 32 };

inline constexpr std::uint8_t kMostScale = 14;  // RFC 7323, 2.3

struct TcpSegment {
  std::uint32_t sequence = 0, acknowledged = 0;
  std::uint32_t length = 0;  // in sequence numbers: SYN and FIN count
  std::uint16_t window = 0;
  std::uint8_t flags = 0;
  std::optional<std::uint8_t> scale{};  // of windows (RFC 7323, 2), in a SYN

  bool has(TcpFlag flag) const { return (flags & flag) != 0; }
  std::uint32_t end() const { return sequence + length; }
};
// Empty: too short, or with flags that no stack sends together.
std::optional<TcpSegment> read_tcp(BytesView frame, const IpPacket& packet);

enum class TcpVerdict : std::uint8_t {
  advances,
  passes,  // without a change
  invalid,
  reopens,  // the flow is over; this begins another
};
// With `picks_up` also what has begun elsewhere may begin.
bool begins(const TcpSegment& segment, bool picks_up);
void begin(Flow& flow, const TcpSegment& segment);
TcpVerdict advance(Flow& flow, Way way, const TcpSegment& segment);

}  // namespace godwit::net
