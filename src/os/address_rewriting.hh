#pragma once
// Destination addresses that the host rewrites, one for one, in what it forwards and what it sends
// itself: no state per connection, and none to move. An nftables table of its own, inet
// godwit_translate, with a map for each kind; others' tables are not looked at.
//
//   prerouting  -450  arrive, quoted      before the kernel's conntrack (-200)
//               -140  depart              after it: so it sees the address before the second, and
//   output      -450  quoted              after the first, the same at each device
//               -140  depart, routed again
//
// quoted: an ICMP error about a packet that departed quotes it as it was rewritten, and whoever
// sent it would not know it: it gets its destination back (RFC 5508, 4; for IPv6 the same).
// Without this no connection would learn of a smaller MTU behind the device.
#include <map>
#include <optional>

#include "base/ip.hh"
#include "base/result.hh"

namespace godwit::os {

struct Rewrites {
  std::map<Ip, Ip> depart{}, arrive{};
  std::map<Ip, Ip> staged{};  // are there, and do nothing
  bool operator==(const Rewrites&) const = default;
};

// All in the calling thread's network namespace, always the same one.
class AddressRewriting final {
 public:
  // All of them or, if that fails, what was there. Only what differs is written; the first time,
  // and if somebody else has changed the table, it is made anew.
  Result<> set(const Rewrites& wanted);
  // Whether the table is as set() left it, its chains too; asks for it only if anything of nftables
  // has changed.
  Result<bool> is_as_set();

  // As the kernel has them; nothing if there is no table.
  static Result<Rewrites> read();
  // Packets that departed by an address's rule since it was written.
  static Result<std::map<Ip, std::uint64_t>> departed();
  // The table, if there is one.
  static Result<> remove();

 private:
  std::optional<Rewrites> known_;
  std::string chains_;                       // their rules, as the kernel showed them
  std::optional<std::uint32_t> generation_;  // of nftables, when it was as set
};

}  // namespace godwit::os
