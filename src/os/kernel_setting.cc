#include "os/kernel_setting.hh"

#include <fmt/format.h>

#include <fstream>

#include "base/result.hh"

namespace godwit::os {

std::string kernel_setting(const std::string& setting) {
  std::string value;
  std::ifstream("/proc/sys/" + setting) >> value;
  return value;
}

void set_kernel(const std::string& setting, const char* value) {
  const std::string path = "/proc/sys/" + setting;
  if (kernel_setting(setting) == value) return;
  std::ofstream file(path);
  file << value << std::flush;
  if (!file) fail_setup("set {} to {}: the agent may not change it", path, value);
}

// That IPv6 is proxied at all is a setting of all interfaces: whoever asks all, or is checking.
void make_proxy(const std::string& interface, bool is4) {
  set_kernel(fmt::format("net/{}/neigh/{}/proxy_delay", is4 ? "ipv4" : "ipv6", interface), "0");
  if (!is4) set_kernel("net/ipv6/conf/all/proxy_ndp", "1");
}

}  // namespace godwit::os
