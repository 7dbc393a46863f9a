#pragma once
// Guests with addresses of several networks (strategy secondary-nic). A server of datagrams whose
// socket has no address leaves that of its answers to its kernel, which takes the one of its way
// out, N, whatever was asked; who asked P takes the answer for a stranger's. So the guest's host
// gives it the address that was asked:
//
//   Q:5000 ──▶ P:53    is remembered
//   Q:5000 ◀── N:53    has P, but not if Q:5000 asked N:53, too
//
// What begins anew keeps N, as nobody asked. An nftables table of its own, inet godwit_asked, whose
// rules are as many for all guests; who asked what is a set that the packets keep themselves, and
// that forgets as the kernel's tracking does.
//
//   prerouting  -350  answers, after fragments are put together (-400), before tracking (-200): to
//                     whatever comes later they are P's, as before the guest had N
//   postrouting  299  what goes to a guest, which sees these addresses
//
// A connected socket, and one that says what address it wants (IP_PKTINFO), never need it. Of one
// that is bound to N and begins anew, with both ports of what P still has, the host cannot tell
// that it does: it gets P.
#include <set>
#include <string>
#include <vector>

#include "base/ip.hh"
#include "base/result.hh"
#include "os/connections.hh"

namespace godwit::os {

// Of one family.
struct ManyHomed {
  Ip chosen{};            // by the guest's kernel, for who leaves it to that
  std::string interface;  // by which that comes
  std::set<Ip> others{};
  bool operator==(const ManyHomed&) const = default;
};
// More of them are not looked at. A guest has one for each network that it has been to.
inline constexpr std::size_t kMostOthers = 8;
// Of each family, in 10 minutes; of further ones the answers have the chosen address.
inline constexpr std::size_t kMostAsked = 65536;

// All in the calling thread's network namespace. These and no others; what was asked stays known.
// None: without the table.
Result<> set_asked_rules(const std::vector<ManyHomed>& guests);
// Who has asked, or was sent anything, before these rules were there; others than datagrams are
// left out, and if the table is not there, all.
Result<> remember_asked(const std::vector<ManyHomed>& guests,
                        const std::vector<Connection>& connections);
Result<bool> has_asked_rules();

}  // namespace godwit::os
