#pragma once
// Sockets of the guest program. It is the vm's only service: what it cannot set up ends it.
#include <cstdint>
#include <string_view>

namespace godwit::lab {

[[noreturn]] void exit_with(std::string_view attempt);  // with errno's text, status 1
// A non-blocking socket of SOCK_STREAM (then listening) or SOCK_DGRAM on all addresses of both
// families.
int bind_or_exit(int type, std::uint16_t port, int protocol = 0);
// Of IPPROTO_MPTCP (RFC 8684), which a kernel may lack.
bool has_mptcp();

}  // namespace godwit::lab
