#pragma once
// What is answered to a packet that a rule rejects: RST to TCP (RFC 9293, 3.5.2), else that it is
// prohibited (RFC 1812, 5.2.7.1; RFC 4443, 3.1).
#include "net/packet.hh"

namespace godwit::net {

// A frame for where it came from, in `out`. `own`: who says so; unspecified: it seems to be whom
// the packet was for. False: such packets are not answered (RST, ICMP errors, fragments but the
// first, what went to many).
bool refuse(BytesView frame, const IpPacket& packet, Ip own, Bytes& out);

}  // namespace godwit::net
