#pragma once
// The connections of guests that the host's kernel tracks (conntrack): it is the source of truth
// for which there are. When a guest moves, its connections are written into the next host's
// tracking, so that also those are known there which say nothing for hours.
//
// All in the calling thread's network namespace, and in its zone 0 only: zones are others'.
#include <compare>
#include <cstdint>
#include <set>
#include <vector>

#include "base/ip.hh"
#include "base/result.hh"

namespace godwit::os {

// As its guest sees it: where it sends to, and from where. Of two guests' one each sees its own.
struct Connection {
  std::uint8_t protocol = 0;  // IPPROTO_TCP, UDP, SCTP, ICMP or ICMPV6
  Ip guest{}, peer{};
  std::uint16_t guest_port = 0, peer_port = 0;  // of an echo (ICMP): its identifier, both
  bool from_guest = false;                      // who began it
  bool replied = false, assured = false;        // IPS_SEEN_REPLY, IPS_ASSURED
  // TCP, SCTP: the kernel's number (linux/netfilter/nf_conntrack_tcp.h, _sctp.h); others: 0.
  std::uint8_t state = 0;
  std::uint32_t timeout_s = 0;  // until it is forgotten if nothing comes
  std::uint32_t mark = 0;
  // SCTP: of packets to the guest, and to the peer (RFC 9260, 3.1).
  std::uint32_t guest_tag = 0, peer_tag = 0;

  auto operator<=>(const Connection&) const = default;
  // Nothing is left that either end would miss. With its last acknowledgement still to come it is
  // not over: what was lost is sent again.
  bool is_over() const;
};

// In order. Throws SetupError.
std::vector<Connection> connections_of(const std::set<Ip>& addresses);

// Those that are tracked already get the mark, the timeout and, if it is over, the state. TCP's
// sequence numbers are not checked any more (IP_CT_TCP_FLAG_BE_LIBERAL): the windows that the other
// host saw are not moved. The error says how many could not be added, and why.
//
// The kernel gives its timeout policies (os/connection_tracking.hh) to connections that begin, not
// to these: from their next packet on they have the namespace's timeouts. A half-closed one would
// have a minute; so it is added as established, with five days.
Result<> add_connections(const std::vector<Connection>& connections);

// What is not there is fine. Throws SetupError.
void remove_connections(const std::vector<Connection>& connections);

}  // namespace godwit::os
