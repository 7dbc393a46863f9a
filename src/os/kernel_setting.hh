#pragma once
// Settings of the kernel's network stack (/proc/sys), in the calling thread's namespace. Throw
// SetupError.
#include <string>

namespace godwit::os {

std::string kernel_setting(const std::string& setting);          // empty: there is none
void set_kernel(const std::string& setting, const char* value);  // "net/ipv4/ip_forward"
// An interface's proxied neighbours (Netlink::add_proxy_neighbour) are answered for, at once: else
// the kernel waits up to 0.8 s.
void make_proxy(const std::string& interface, bool is4);

}  // namespace godwit::os
