#include "os/address_claim.hh"

#include <fmt/format.h>

#include <fstream>

#include "os/announce.hh"
#include "os/netlink.hh"

namespace godwit::os {
namespace {

std::string alone(const Ip& address) {
  return IpPrefix{address, static_cast<std::uint8_t>(address.is4() ? 32 : 128)}.text();
}

void set(const std::string& path, const char* value) {
  std::ofstream setting(path);
  setting << value << std::flush;
  if (!setting) fail_setup("set {} to {}: the agent may not change it", path, value);
}

// Answers are given at once (else the kernel waits up to 0.8 s), and for IPv6 at all: to whoever
// asks all, or is checking (that is the setting of all interfaces).
void make_proxy(const std::string& interface, bool is4) {
  set(fmt::format("/proc/sys/net/{}/neigh/{}/proxy_delay", is4 ? "ipv4" : "ipv6", interface), "0");
  if (!is4) set("/proc/sys/net/ipv6/conf/all/proxy_ndp", "1");
}

}  // namespace

void answer_for(const std::string& interface, const Ip& address) {
  make_proxy(interface, address.is4());
  Netlink netlink;
  netlink.add_route(alone(address), {}, "lo");
  netlink.add_proxy_neighbour(interface, address.text());
}

void claim(const std::string& interface, const Ip& address) {
  answer_for(interface, address);
  if (const auto told = announce(interface, address); !told) fail_setup("{}", told.error().text);
}

void unclaim(const std::string& interface, const Ip& address) {
  Netlink netlink;
  netlink.remove_proxy_neighbour(interface, address.text());
  netlink.remove_route(alone(address));
}

}  // namespace godwit::os
