#pragma once
// Settings of the kernel's network stack, in the calling thread's namespace. Throw SetupError.
#include <string>

namespace godwit::os {

// "net/ipv4/ip_forward", of /proc/sys.
void set_kernel(const std::string& setting, const char* value);

enum class Family : bool { ip4, ip6 };
// The host forwards packets; once it does it goes on.
void have_forwarding(Family family);
// An interface's proxied neighbours (Netlink::add_proxy_neighbour) are answered for, at once: else
// the kernel waits up to 0.8 s.
void make_proxy(const std::string& interface, bool is4);

}  // namespace godwit::os
