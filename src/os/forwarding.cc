#include "os/forwarding.hh"

#include <fmt/format.h>

#include <fstream>

#include "base/result.hh"

namespace godwit::os {

void set_kernel(const std::string& setting, const char* value) {
  const std::string path = "/proc/sys/" + setting;
  std::string before;
  std::ifstream(path) >> before;
  if (before == value) return;
  std::ofstream file(path);
  file << value << std::flush;
  if (!file) fail_setup("set {} to {}: the agent may not change it", path, value);
}

void have_forwarding(Family family) {
  const bool is4 = family == Family::ip4;
  const char* setting = is4 ? "net/ipv4/ip_forward" : "net/ipv6/conf/all/forwarding";
  try {
    set_kernel(setting, "1");
  } catch (const SetupError&) {
    fail_setup(
        "this host forwards no IPv{} packets, and the agent may not change that: sysctl -w {}=1, "
        "and the same in /etc/sysctl.d",
        is4 ? 4 : 6, is4 ? "net.ipv4.ip_forward" : "net.ipv6.conf.all.forwarding");
  }
}

// That IPv6 is proxied at all: whoever asks all, or is checking; that is the setting of all
// interfaces.
void make_proxy(const std::string& interface, bool is4) {
  set_kernel(fmt::format("net/{}/neigh/{}/proxy_delay", is4 ? "ipv4" : "ipv6", interface), "0");
  if (!is4) set_kernel("net/ipv6/conf/all/proxy_ndp", "1");
}

}  // namespace godwit::os
