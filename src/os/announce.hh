#pragma once
// Tells an interface's segment that an address is here: an ARP announcement (RFC 5227, 2.3) or an
// unsolicited neighbour advertisement that overrides (RFC 4861, 7.2.6). Who knew it elsewhere sends
// here from now on; who did not learns nothing.
#include <string>

#include "base/ip.hh"

namespace godwit::os {

// In the calling thread's network namespace; needs CAP_NET_RAW. The interface is up.
Result<> announce(const std::string& interface, const Ip& address);

}  // namespace godwit::os
