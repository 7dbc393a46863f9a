#pragma once
// Looks at this host as an agent would use it: what can be tried is tried (a TAP pair in a network
// namespace of its own, QEMU, the port), and nothing is left behind. Needs no running agent; blocks
// for some seconds. As root it sees all; else it says what it could not see.
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "doctor/finding.hh"

namespace godwit::doctor {

struct Options {
  std::filesystem::path state_dir = "/var/lib/godwit";
  std::filesystem::path run_dir = "/run/godwit";
  std::string socket;  // empty: the one in run_dir
  std::uint16_t port = 4747;
  unsigned path_mtu = 1280;        // what IPv6 asks of a link; paths are probed for more
  std::vector<std::string> reach;  // other hosts: "192.0.2.1", "192.0.2.1:4747", a name
};

Findings examine(const Options& options);

// The parts, one file each.
Findings examine_kernel();   // kernel.cc: Linux, TAPs, namespaces
Findings examine_machine();  // machine.cc: KVM, QEMU and its tools, memory, clock
Findings examine_files(const Options& options);    // files.cc: directories, certificate
Findings examine_network(const Options& options);  // network.cc: agent, port, MTU, other hosts

}  // namespace godwit::doctor
