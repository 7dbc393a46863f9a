#pragma once
// What a device does for one guest that is not where its address is routed to.
//
//   correspondent ── P ──▶ [depart: P becomes L] ── L ──▶ [arrive: L becomes P] ── P ──▶ guest
//
// P is the guest's permanent address, L its locator, an address of the network it is in now. What
// the guest sends has P and goes its way without rules. Devices that follow connections see P only:
// a packet departs after, and arrives before, they look at it. ICMP errors about a packet to L get
// P back in the header that they quote (RFC 5508, 4).
#include <compare>
#include <cstdint>
#include <string>
#include <vector>

#include "base/ip.hh"

namespace godwit::translate {

enum class RuleKind : std::uint8_t {
  depart,  // destination `match` becomes `becomes`
  arrive,  // the same, at the host where the guest is
  claim,   // answers for `match` on its segment (ARP, neighbour discovery), and announces it
  answer,  // the same for those who ask; who knows another place is not told
};
std::string_view to_text(RuleKind kind);

struct Rule {
  RuleKind kind = RuleKind::depart;
  Ip match{};
  Ip becomes{};           // of claims and answers: unspecified
  bool is_active = true;  // else it is there, and read back, and does nothing yet
  auto operator<=>(const Rule&) const = default;
};
// Whether packets are rewritten by it.
constexpr bool rewrites(RuleKind kind) { return kind <= RuleKind::arrive; }
// "depart 10.1.1.20 -> 10.1.4.200"
std::string to_text(const Rule& rule);

// Of one guest at one device, in order; no two the same.
using Rules = std::vector<Rule>;

}  // namespace godwit::translate
