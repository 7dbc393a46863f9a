#pragma once
// What an agent is told when it starts: on its command line, or by the same names in a file
// (/etc/godwit/godwitd.conf of the package). What it learns later is in its store.
#include <filesystem>
#include <string>
#include <vector>

#include "agent/mapping_config.hh"
#include "base/units.hh"
#include "wire/limits.hh"

namespace godwit::agent {

inline constexpr std::uint16_t kDefaultPort = 4747;
// Jumbo frames: what a path carries is found by probing (wire/mtu_search.hh).
inline constexpr std::uint16_t kDefaultMostMtu = 9000;

// What the operator wants to be run around a move (agent/hooks.hh).
struct HookPolicy {
  std::filesystem::path directory = "/etc/godwit/hooks";
  Nanoseconds timeout = seconds(5);  // of each
};
inline constexpr Nanoseconds kMaxHookTimeout = seconds(60);  // the vm is copied meanwhile

struct Config {
  std::string name;  // of this host, unique in its fleet
  std::string site = "default";
  // Under which others reach this host, best first; none: those it has towards them at the time.
  std::vector<std::string> addresses;
  std::uint16_t port = kDefaultPort;  // TCP and UDP
  std::uint16_t most_mtu = kDefaultMostMtu;
  std::size_t wire_threads = 1;      // that carry packets; parse_command_line() has a default
  std::string relay_rate = "1gbit";  // what it forwards for others; "none": nothing
  std::filesystem::path state_dir = "/var/lib/godwit";
  std::filesystem::path run_dir = "/run/godwit";
  // What remote users' vms may boot; not below state_dir, which QEMU's user cannot enter.
  std::filesystem::path image_dir = "/var/lib/godwit-images";
  // Vms' disks and the image library; beside state_dir for the same reason.
  std::filesystem::path disk_dir = "/var/lib/godwit-disks";
  ByteCount known_memory{};  // see KnownMemory; parse_command_line() has a default
  // What godwit-libvirt connects to for moves of libvirt's domains; "none": there are none.
  std::string libvirt = "qemu:///system";
  HookPolicy hooks;
  bool ignore_failed_hooks = false;  // of pre-pause, which otherwise end the move
  MappingConfig mapping;
  bool verbose = false;

  std::filesystem::path socket() const { return run_dir / "godwitd.sock"; }
  std::filesystem::path store() const { return state_dir / "agent.db"; }
  std::filesystem::path audit() const { return state_dir / "audit.log"; }
  std::filesystem::path vm_dir(const std::string& vm) const { return run_dir / "vms" / vm; }
  std::filesystem::path library() const { return disk_dir / "images"; }
  std::filesystem::path vm_disks() const { return disk_dir / "vms"; }
};

// Parses godwitd's arguments; exits for --help and --version. Throws SetupError.
Config parse_command_line(int argc, char** argv);

wire::Limits wire_limits(const Config& config);

}  // namespace godwit::agent
