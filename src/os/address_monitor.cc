#include "os/address_monitor.hh"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>

namespace godwit::os {

AddressMonitor::AddressMonitor(Loop& loop, std::function<void()> changed)
    : loop_(loop),
      changed_(std::move(changed)),
      socket_(::socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_ROUTE)) {
  sockaddr_nl at{};
  at.nl_family = AF_NETLINK;
  at.nl_groups = RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE;
  if (!socket_ ||
      ::bind(socket_.number(), reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0) {
    return;
  }
  watch_ = loop_.watch(socket_, EPOLLIN, [this](std::uint32_t) { drain(); });
}

// What exactly changed is asked anew by those who care: messages may have been lost (ENOBUFS).
void AddressMonitor::drain() {
  std::array<std::byte, 8192> buffer;
  while (::recv(socket_.number(), buffer.data(), buffer.size(), 0) > 0 || errno == ENOBUFS) {
    errno = 0;
  }
  settle_ = loop_.after(kSettle, [this] { changed_(); });
}

// Connecting a UDP socket sends nothing.
std::optional<Endpoint> source_towards(const Endpoint& to) {
  const Fd fd(::socket(to.family(), SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_storage raw{};
  const socklen_t size = to.to_sockaddr(raw, to.family());
  if (!fd || ::connect(fd.number(), reinterpret_cast<const sockaddr*>(&raw), size) != 0) {
    return std::nullopt;
  }
  socklen_t got = sizeof raw;
  if (::getsockname(fd.number(), reinterpret_cast<sockaddr*>(&raw), &got) != 0) {
    return std::nullopt;
  }
  auto source = Endpoint::from_sockaddr(raw);
  if (!source) return std::nullopt;
  source->port = 0;
  return *source;
}

}  // namespace godwit::os
