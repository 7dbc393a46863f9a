#pragma once
// The kernel's own counters of this network namespace (proc(5), /proc/net/netstat and
// /proc/net/snmp).
#include <cstdint>
#include <string_view>

namespace godwit::lab {

struct TcpCounters {
  std::uint64_t timeouts = 0;         // TcpExt TCPTimeouts: retransmission time-outs (RTO)
  std::uint64_t retransmissions = 0;  // Tcp RetransSegs
  std::uint64_t resets_received = 0;  // Tcp EstabResets
  bool operator==(const TcpCounters&) const = default;
};

TcpCounters read_tcp_counters();

// Datagrams that this kernel dropped of its own: not the network's loss.
struct UdpDrops {
  std::uint64_t received = 0;  // Udp InErrors: no room in the socket, or a wrong checksum
  std::uint64_t sent = 0;      // Udp SndbufErrors: no room in the device's queue
  bool operator==(const UdpDrops&) const = default;
};

UdpDrops read_udp_drops();

// The value of `field` in the pair of lines "Group: names..." / "Group: numbers..."; 0 if absent.
std::uint64_t netstat_field(std::string_view file, std::string_view group, std::string_view field);

}  // namespace godwit::lab
