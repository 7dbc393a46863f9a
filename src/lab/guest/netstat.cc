#include "lab/guest/netstat.hh"

#include <charconv>
#include <fstream>
#include <iterator>
#include <string>

namespace godwit::lab {
namespace {

std::string_view take_word(std::string_view& text) {
  const std::size_t start = text.find_first_not_of(' ');
  if (start == std::string_view::npos) return text = {}, std::string_view{};
  text.remove_prefix(start);
  const std::string_view word = text.substr(0, text.find(' '));
  text.remove_prefix(word.size());
  return word;
}

std::string_view take_line(std::string_view& text) {
  const std::string_view line = text.substr(0, text.find('\n'));
  text.remove_prefix(std::min(line.size() + 1, text.size()));
  return line;
}

// seq_file: no size, so read to the end.
std::string read_all(const char* path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

std::uint64_t netstat_field(std::string_view file, std::string_view group, std::string_view field) {
  while (!file.empty()) {
    std::string_view names = take_line(file);
    std::string_view values = take_line(file);
    const std::string_view title = take_word(names);
    take_word(values);
    if (title.substr(0, title.find(':')) != group) continue;
    while (!names.empty()) {
      const std::string_view name = take_word(names);
      const std::string_view value = take_word(values);
      if (name != field) continue;
      std::uint64_t number = 0;
      std::from_chars(value.data(), value.data() + value.size(), number);
      return number;
    }
  }
  return 0;
}

TcpCounters read_tcp_counters() {
  const std::string netstat = read_all("/proc/net/netstat");
  const std::string snmp = read_all("/proc/net/snmp");
  return {.timeouts = netstat_field(netstat, "TcpExt", "TCPTimeouts"),
          .retransmissions = netstat_field(snmp, "Tcp", "RetransSegs"),
          .resets_received = netstat_field(snmp, "Tcp", "EstabResets")};
}

UdpDrops read_udp_drops() {
  const std::string snmp = read_all("/proc/net/snmp");
  return {.received = netstat_field(snmp, "Udp", "InErrors"),
          .sent = netstat_field(snmp, "Udp", "SndbufErrors")};
}

}  // namespace godwit::lab
