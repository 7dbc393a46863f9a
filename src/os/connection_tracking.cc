#include "os/connection_tracking.hh"

#include <fmt/format.h>

#include <string>

#include "os/nftables.hh"

namespace godwit::os {
namespace {

constexpr const char* kTable = "godwit_track";

// Seconds. Half a connection may be idle for as long as a whole one, in principle; the kernel gives
// it one or two minutes. A connection with data under way that nobody acknowledges is given up by
// Linux after about 15 minutes (tcp_retries2; RFC 1122, 4.2.3.5), so it is known for longer.
constexpr const char* kObjects = R"(
  set guests4 { type ipv4_addr; }
  set guests6 { type ipv6_addr; }
  ct timeout idle_tcp {
    protocol tcp;
    l3proto inet;
    policy = { established : 432000, fin_wait : 43200, close_wait : 43200, last_ack : 300, )"
                                 R"(retrans : 1800, unack : 1800 };
  }
  ct timeout idle_udp {
    protocol udp;
    l3proto inet;
    policy = { unreplied : 600, replied : 600 };
  }
)";

// After the kernel's conntrack (-200), which makes the entry, and before addresses are rewritten
// (os/address_rewriting.hh): the guests' own are seen. A policy is for what begins; the kernel
// passes over it if its protocol is another.
constexpr const char* kChains = R"(
  chain remember {
    ct timeout set "idle_tcp" ct timeout set "idle_udp"
  }
  chain begun {
    ip saddr @guests4 goto remember
    ip daddr @guests4 goto remember
    ip6 saddr @guests6 goto remember
    ip6 daddr @guests6 goto remember
  }
  chain arriving {
    type filter hook prerouting priority -150;
    ct state new goto begun
  }
)";

std::string elements(const std::set<Ip>& guests, bool is4) {
  std::string list;
  for (const Ip& guest : guests) {
    if (guest.is4() == is4) list += guest.text() + ", ";
  }
  if (list.empty()) return {};
  return fmt::format("add element inet {} guests{} {{ {} }}\n", kTable, is4 ? 4 : 6, list);
}

}  // namespace

// Removing a policy takes it from the connections that have it: so the table stays.
void track_guests(const std::set<Ip>& guests) {
  const auto done =
      guests.empty()
          ? remove_inet_table(kTable)
          : write_inet_table({.name = kTable,
                              .objects = kObjects,
                              .chains = kChains,
                              .elements = elements(guests, true) + elements(guests, false)});
  if (!done) fail_setup("track the connections of guests: {}", done.error().text);
}

}  // namespace godwit::os
