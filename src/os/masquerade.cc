#include "os/masquerade.hh"

#include <fmt/format.h>

#include "os/forwarding.hh"
#include "os/nftables.hh"

namespace godwit::os {
Masquerade::Masquerade(const std::string& interface, const IpPrefix& network)
    : table_("godwit_up_" + to_hex(as_bytes(interface))) {
  have_host_forward(true);
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
