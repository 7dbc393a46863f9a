#pragma once
// The answer of a router to a packet that does not fit its next link.
#include <array>
#include <cstdint>

#include "base/bytes.hh"

namespace godwit::lab {

using Ipv4Bytes = std::array<std::byte, 4>;
using Ipv6Bytes = std::array<std::byte, 16>;

// ICMP "fragmentation needed" (RFC 792, RFC 1191) or ICMPv6 "packet too big" (RFC 4443 3.2) as a
// whole Ethernet frame for the sender of `frame`, from the far router's addresses. Empty when none
// may be sent: IPv4 without DF (this emulator does not fragment, it drops), an ICMP error, a
// multicast source or target, a frame that is not IP.
Bytes too_big_reply(BytesView frame, std::uint16_t mtu, const Ipv4Bytes& from4,
                    const Ipv6Bytes& from6);

}  // namespace godwit::lab
