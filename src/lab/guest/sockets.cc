#include "lab/guest/sockets.hh"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace godwit::lab {

void exit_with(std::string_view attempt) {
  std::fprintf(stderr, "godwit-guest: %.*s: %s\n", static_cast<int>(attempt.size()), attempt.data(),
               std::strerror(errno));
  std::exit(1);
}

bool has_mptcp() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_MPTCP);
  if (fd < 0) return false;
  ::close(fd);
  return true;
}

int bind_or_exit(int type, std::uint16_t port, int protocol) {
  const int fd = ::socket(AF_INET6, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
  if (fd < 0) exit_with("socket");
  const int one = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  sockaddr_in6 address{};
  address.sin6_family = AF_INET6;
  address.sin6_port = htons(port);
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    exit_with("bind");
  }
  if (type == SOCK_STREAM && ::listen(fd, 64) != 0) exit_with("listen");
  return fd;
}

}  // namespace godwit::lab
