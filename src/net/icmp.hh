#pragma once
// ICMP and ICMPv6 as a router speaks it (RFC 792, RFC 4443): echo answered, errors told.
#include "net/packet.hh"

namespace godwit::net {

// Of both kinds; each has its own types and codes for them.
enum class IcmpError : std::uint8_t {
  no_route,
  no_host,     // the neighbour does not answer
  no_port,     // nobody listens
  prohibited,  // by a rule
  too_big,     // `mtu` would do
  hops_exceeded,
};

// The frame of an echo request for this host becomes the answer. False: it is no such request.
bool answer_echo(MutableBytes frame, const IpPacket& packet);
// Whether an error may be told of this packet: RFC 1122, 3.2.2; RFC 4443, 2.4 (e).
bool may_tell_error(BytesView frame, const IpPacket& packet);
// A frame that tells it to the source of `frame`, by the way it came.
void write_icmp_error(IcmpError error, std::uint16_t mtu, BytesView frame, const IpPacket& packet,
                      Ip source, Mac source_mac, Bytes& out);

}  // namespace godwit::net
