#include "os/forwarding.hh"

#include <fmt/format.h>

#include <fstream>
#include <sstream>
#include <string>

namespace godwit::os {
namespace {

// linux/ipv6_route.h: from a router's advertisement.
constexpr unsigned kFromAdvertisement = 0x0004'0000;

const char* setting_of(bool is4) {
  return is4 ? "net/ipv4/ip_forward" : "net/ipv6/conf/all/forwarding";
}

int read_number(const std::string& path) {
  int number = 0;
  std::ifstream(path) >> number;
  return number;
}

// A router takes no advice from routers (RFC 4861, 6.2.8): as it becomes one, the kernel removes
// the default routes that it was advised of, but for interfaces with accept_ra 2.
std::string advised_interface() {
  std::ifstream routes("/proc/thread-self/net/ipv6_route");
  for (std::string line; std::getline(routes, line);) {
    std::istringstream fields(line);
    std::string to, length, skipped, flags, interface;
    fields >> to >> length;
    for (int i = 0; i < 6; ++i) fields >> skipped;
    fields >> flags >> interface;
    if (!fields || length != "00") continue;
    if ((std::stoul(flags, nullptr, 16) & kFromAdvertisement) == 0) continue;
    if (read_number(fmt::format("/proc/sys/net/ipv6/conf/{}/accept_ra", interface)) != 2) {
      return interface;
    }
  }
  return {};
}

}  // namespace

bool forwards(bool is4) { return read_number(fmt::format("/proc/sys/{}", setting_of(is4))) != 0; }

void have_host_forward(bool is4) {
  if (forwards(is4)) return;
  if (const auto interface = is4 ? std::string() : advised_interface(); !interface.empty()) {
    fail_setup(
        "this host forwards no IPv6 packets, and would lose its default route by {} if it did: "
        "sysctl -w net.ipv6.conf.{}.accept_ra=2, and the same in /etc/sysctl.d",
        interface, interface);
  }
  std::ofstream setting(fmt::format("/proc/sys/{}", setting_of(is4)));
  setting << "1" << std::flush;
  if (setting && forwards(is4)) return;
  fail_setup(
      "this host forwards no {} packets, and the agent may not change that: sysctl -w {}=1, and "
      "the same in /etc/sysctl.d",
      is4 ? "IPv4" : "IPv6", is4 ? "net.ipv4.ip_forward" : "net.ipv6.conf.all.forwarding");
}

}  // namespace godwit::os
