#pragma once
// A guest behind an interface of the host, which is its gateway and has routes to its addresses:
// no bridge, no network of its own. Whatever the guest asks for in its segment the host answers
// (proxy ARP), and forwards; it takes fe80::1 for its IPv6 gateway. Where the host is on the
// segment that an address belongs to, it answers for it there (RFC 1027, RFC 4389).
//
// All in the calling thread's network namespace. Throw SetupError; harmless if repeated.
#include <string>

#include "base/ip.hh"
#include "os/mac.hh"

namespace godwit::os {

// Of the gateway as every guest sees it, on whatever host: nothing is learned anew after a move.
inline constexpr MacAddress kGatewayMac{{0x02, 0x67, 0x6f, 0x64, 0x77, 0x69}};

void be_gateway(const std::string& interface, bool for_ip6);
void route_guest(const std::string& interface, const Ip& address);
// What others answer for on that segment (os/address_claim.hh) they go on with.
void unroute_guest(const Ip& address);

}  // namespace godwit::os
