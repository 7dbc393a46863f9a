#pragma once
// A NIC that was plugged in, configured in a Linux guest by its qemu-guest-agent: a shell script
// (guest_network_script.hh) that iproute2 and busybox both understand. Each NIC's addresses have a
// routing table of their own, so that what has such an address leaves by this NIC whatever the
// default route is:
//
//   ip rule:  from 203.0.113.7 ──▶ table of eth1:  203.0.113.0/24 dev eth1
//             (all else)       ──▶ main            default via 203.0.113.1 dev eth1 onlink
//
// The new addresses work as soon as they are there; make_default() then lets everything new go by
// them. A reboot takes it all back, but what was written to /etc/resolv.conf.
//
// A guest is not trusted: what it answers is bounded, and reported as its own words. What goes into
// the script is made of checked values only, never of text.
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "qemu/guest_agent.hh"
#include "qemu/vm_spec.hh"

namespace godwit::qemu {

// Of one of the functions below. Duplicate address detection takes two seconds of it, and a NIC
// that was plugged in just now may take some to appear.
inline constexpr Nanoseconds kGuestNetworkLimit = seconds(30);

// A step's end, by the guest's clock since the function's begin.
struct GuestStep {
  std::string name;  // "interface", "up", "duplicates", "addresses", "routes", "neighbour4", ...
  milliseconds at{};
};

struct GuestNetworkReport {
  std::string interface;  // the guest's name of it; empty: the guest has none (deconfigure())
  // That the address is no one else's was asked for: the kernel does for IPv6, and arping, if the
  // guest has it, for IPv4.
  bool checked_duplicates4 = false;
  std::optional<bool> gateway4_answers{}, gateway6_answers{};  // if asked
  bool mptcp = false;                                          // endpoints were added
  std::vector<std::string> notes{};    // what the guest could not do, and no more than that
  std::vector<std::string> dropped{};  // old addresses that MPTCP gave up (make_default())
  std::vector<GuestStep> steps{};
  milliseconds took{};  // as we measured it
};
nlohmann::json to_json(const GuestNetworkReport& report);

using GuestNetworkAnswer = std::move_only_function<void(Result<GuestNetworkReport>)>;

// Of a NIC that has a network; make_default() also of one that the vm was made with, whose guest
// configured it itself. Each is idempotent, and calls `answer` once, from the loop, if
// `agent` lives so long. After an error of configure() nothing that it added is left.
void configure(GuestAgent& agent, const NicSpec& nic, GuestNetworkAnswer answer);
// The old default route stays, with a worse metric, and so does the way out of its NIC's addresses.
// `drop_old`: connections of MPTCP give the old NIC's addresses up. Of a NIC without a network: the
// others give back what they took; what has their addresses keeps its way out.
void make_default(GuestAgent& agent, const NicSpec& nic, bool drop_old, GuestNetworkAnswer answer);
// Back to what was before configure(); also of a NIC that is gone from the guest.
void deconfigure(GuestAgent& agent, const NicSpec& nic, GuestNetworkAnswer answer);

}  // namespace godwit::qemu
