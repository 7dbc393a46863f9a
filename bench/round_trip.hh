#pragma once
// Network namespaces that are linked, and a datagram there and back between them, timed by who
// sends it.
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

#include "base/problem.hh"
#include "os/fd.hh"
#include "os/netlink.hh"
#include "os/netns.hh"

namespace godwit {

inline sockaddr_in socket_address(std::uint32_t ip, std::uint16_t port) {
  return {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(ip)}, .sin_zero = {}};
}

inline const sockaddr* as_sockaddr(const sockaddr_in& at) {
  return reinterpret_cast<const sockaddr*>(&at);
}

inline void need(bool done, const char* what) {
  if (!done) fail_setup("{}", errno_text(what));
}

inline os::Fd socket_in(os::NetNamespace& place, int type) {
  return place.run([&] {
    os::Fd fd(::socket(AF_INET, type | SOCK_CLOEXEC, 0));
    const int one = 1;
    ::setsockopt(fd.number(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    return fd;
  });
}

// A link between two, and their addresses: 10.N.0.1 to the left, 10.N.0.2 to the right.
inline void join(os::NetNamespace& left, os::NetNamespace& right, int n) {
  left.run([&] {
    os::Netlink netlink;
    const std::string near = fmt::format("to{}", n);
    netlink.add_veth(near, "far");
    netlink.move_to("far", right.fd());
    netlink.add_address(near, fmt::format("10.{}.0.1/24", n));
    netlink.set_up(near);
    netlink.set_up("lo");
  });
  right.run([&] {
    os::Netlink netlink;
    netlink.rename("far", fmt::format("from{}", n));
    netlink.add_address(fmt::format("from{}", n), fmt::format("10.{}.0.2/24", n));
    netlink.set_up(fmt::format("from{}", n));
    netlink.set_up("lo");
  });
}

// Microseconds, the median. `from`: any port is fine if it is 0.
inline double round_trip_us(os::NetNamespace& client, const sockaddr_in& from,
                            os::NetNamespace& server, const sockaddr_in& to, int count) {
  using Clock = std::chrono::steady_clock;
  const os::Fd listener = socket_in(server, SOCK_DGRAM), fd = socket_in(client, SOCK_DGRAM);
  need(::bind(listener.number(), as_sockaddr(to), sizeof to) == 0, "bind");
  need(::bind(fd.number(), as_sockaddr(from), sizeof from) == 0, "bind");
  need(::connect(fd.number(), as_sockaddr(to), sizeof to) == 0, "connect");
  const timeval limit{.tv_sec = 5, .tv_usec = 0};
  for (const int number : {listener.number(), fd.number()}) {
    ::setsockopt(number, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  }
  std::thread echo([&] {
    std::array<char, 64> buffer{};
    for (int i = 0; i < count; ++i) {
      sockaddr_in who{};
      socklen_t size = sizeof who;
      const auto got = ::recvfrom(listener.number(), buffer.data(), buffer.size(), 0,
                                  reinterpret_cast<sockaddr*>(&who), &size);
      if (got < 0) return;  // the client tells of it
      ::sendto(listener.number(), buffer.data(), static_cast<std::size_t>(got), 0,
               reinterpret_cast<const sockaddr*>(&who), size);
    }
  });
  std::vector<double> times;
  std::array<char, 64> buffer{};
  bool is_whole = true;
  for (int i = 0; i < count && is_whole; ++i) {
    const auto begun = Clock::now();
    is_whole = ::send(fd.number(), "ping", 4, 0) == 4 &&
               ::recv(fd.number(), buffer.data(), buffer.size(), 0) == 4;
    times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - begun).count());
  }
  const int error = errno;
  echo.join();
  errno = error;
  need(is_whole, "send a datagram and get it back");
  std::ranges::nth_element(times, times.begin() + count / 2);
  return times[static_cast<std::size_t>(count) / 2];
}

}  // namespace godwit
