#pragma once
// TCP's own counters of this network namespace (proc(5), /proc/net/netstat and /proc/net/snmp).
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

// The value of `field` in the pair of lines "Group: names..." / "Group: numbers..."; 0 if absent.
std::uint64_t netstat_field(std::string_view file, std::string_view group, std::string_view field);

}  // namespace godwit::lab
