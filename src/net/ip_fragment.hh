#pragma once
// IPv4 packets that are longer than a link takes, cut (RFC 791, 3.2).
#include <functional>

#include "net/packet.hh"

namespace godwit::net {

// What a TAP's other end would have to finish is finished: the frame has its layer-4 checksum.
void finish_checksum(MutableBytes frame);
// The pieces, each a frame of at most `mtu` bytes of IP, in order. The packet may be cut.
void fragment_ip4(BytesView frame, const IpPacket& packet, std::uint16_t mtu,
                  const std::function<void(BytesView)>& piece);

}  // namespace godwit::net
