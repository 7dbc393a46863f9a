#pragma once
// Addresses and ports in frames, rewritten in place with all checksums that cover them (RFC 1624).
// Where the vnet header leaves a checksum to be finished, its field holds the sum of the
// pseudo-header, in which ports do not count.
#include "net/flow_state.hh"

namespace godwit::net {

struct Endpoint {
  Ip ip{};
  std::uint16_t port = 0;
  bool operator==(const Endpoint&) const = default;
};
inline Endpoint source_of(const Tuple& tuple) { return {tuple.source, tuple.source_port}; }
inline Endpoint destination_of(const Tuple& tuple) {
  return {tuple.destination, tuple.destination_port};
}

// Of the same family. In the frame and in `packet`.
void rewrite(MutableBytes frame, IpPacket& packet, Side side, Endpoint to);

// What an ICMP error becomes: who says it to whom, and about which packet.
struct ErrorRewrite {
  Ip source{}, destination{};
  Tuple quoted{};
};
void rewrite_error(MutableBytes frame, IpPacket& packet, IpPacket& quoted, const ErrorRewrite& to);

}  // namespace godwit::net
