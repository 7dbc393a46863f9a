#include "os/masquerade.hh"

#include <fmt/format.h>

#include <fstream>

#include "os/nftables.hh"

namespace godwit::os {
namespace {

constexpr const char* kForwards = "/proc/sys/net/ipv4/ip_forward";

void have_host_forward() {
  int forwards = 0;
  std::ifstream(kForwards) >> forwards;
  if (forwards != 0) return;
  std::ofstream setting(kForwards);
  setting << "1" << std::flush;
  if (!setting) {
    fail_setup(
        "this host forwards no IPv4 packets, and the agent may not change that: sysctl -w "
        "net.ipv4.ip_forward=1, and the same in /etc/sysctl.d");
  }
}

}  // namespace

Masquerade::Masquerade(const std::string& interface, const IpPrefix& network)
    : table_("godwit_up_" + to_hex(as_bytes(interface))) {
  have_host_forward();
  const auto done = apply_nftables(fmt::format(R"(table ip {0} {{}}
delete table ip {0}
table ip {0} {{
  chain out {{
    type nat hook postrouting priority srcnat;
    ip saddr {1} oifname != "{2}" masquerade
  }}
}}
)",
                                               table_, network.network().text(), interface));
  if (!done) fail_setup("masquerade {}: {}", network.network().text(), done.error().text);
}

Masquerade::~Masquerade() {
  const auto done = apply_nftables(fmt::format("table ip {0} {{}}\ndelete table ip {0}\n", table_));
  (void)done;  // somebody else has removed it, or flushed the ruleset
}

}  // namespace godwit::os
