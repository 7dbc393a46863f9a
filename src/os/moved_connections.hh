#pragma once
// Connections of guests that are not where their address is (strategy endpoint): packets of those
// that were there before a move have the addresses that the hosts at both ends gave them on their
// way, and the addresses that the two sockets know everywhere else.
//
//   guest P ── host ── F ⇢ ── correspondent's host ── Q         F is P's on the way
//                 └─ relay ── host where P is at home ── Q'     no agent there
//
// Which connections these are the kernel's tracking knows (os/connections.hh), by a mark; here are
// the few rules for all of them: an nftables table of its own, inet godwit_endpoint. Tracking sees
// P and Q only, on every host.
//
//   prerouting  -460  what comes from F is P's; what comes to F or to P's new address is noted
//               -140  a connection's packets go to F, or by the relay, or their way
//   output      -140  the same, for what the host itself sends
//   forward        0  what has no relay any more is refused, with a reset
//   postrouting  300  what P sends has F, or the new address
//                301  what is said of packets to P, by it or the host, is said of the new address
//
// ICMP errors quote a packet as it was on the way: it gets the address back that its sender knows.
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "base/ip.hh"
#include "base/result.hh"

namespace godwit::os {

// Bits of a connection's mark. What others use the mark for is left alone.
inline constexpr std::uint32_t kInheritedMark = 0x02000000;  // at the guest: older than its move
inline constexpr std::uint32_t kLabelledMark = 0x04000000;  // at the correspondent: of such a guest
inline constexpr std::uint32_t kNewAddressMark = 0x08000000;  // at the guest: by its new address
// At the guest: its peer knows it by an address of a host where it was, so only the relay serves
// it.
inline constexpr std::uint32_t kRenamedMark = 0x01000000;
// And of a packet's: that it is to go by the relay.
inline constexpr std::uint32_t kRelayMark = 0x04000000;

struct MovedRules {
  using Pair = std::pair<Ip, Ip>;  // from, to
  // Of guests here.
  std::map<Ip, Ip> on_the_way{};     // P becomes F, in connections that are older than the move
  std::map<Ip, Ip> new_address{};    // P becomes this one in all others
  std::set<Pair> direct{};           // P and Q: the correspondent's host knows F
  std::set<Ip> at_home{};            // P is P in all but those that have kRenamedMark
  std::set<std::string> relays{};    // interfaces to the hosts where the guests were
  std::set<std::string> renaming{};  // those of them that give P other names: what is new there
  // Of guests elsewhere whose correspondents are here.
  std::map<Pair, Ip> moved{};   // from Q to P: becomes F, for connections with the label
  std::map<Pair, Ip> coming{};  // from F to Q: becomes P
  // Guests that were here, whose relay has ended: what comes for them is refused.
  std::set<Ip> refused{};
  // Of all guests here: between them nothing is rewritten.
  std::set<Ip> local{};
  bool operator==(const MovedRules&) const = default;
  bool empty() const {
    return on_the_way.empty() && new_address.empty() && at_home.empty() && moved.empty() &&
           coming.empty() && refused.empty() && relays.empty();
  }
};

// All of them at once, or as it was; none: without the table. In the calling thread's namespace.
Result<> set_moved_rules(const MovedRules& rules);
// Likewise, of what set_moved_rules() wrote: only what is not the same. An error if it is not
// there.
Result<> change_moved_rules(const MovedRules& before, const MovedRules& after);
// Whether the table is there, with its chains.
Result<bool> has_moved_rules();

}  // namespace godwit::os
