#pragma once
// What is known of a running lab to commands outside it: one directory per lab,
//
//   /run/godwit-lab/NAME/            (without root: $XDG_RUNTIME_DIR, else /tmp/godwit-lab-UID)
//     lock          held (flock) by the holder; free means that the lab is down or crashed
//     state.json    this file's LabState, replaced atomically
//     lab.yaml      the configuration it was made from
//     holder.sock   control of hosts          wan.sock   control of links
//     holder.log    what the holder and the emulator said
//     disks/        mount point of the hosts' disks, seen inside the holder only
//
// Every process is recorded with its start time, so that clean-up never ends a stranger.
#include <string>
#include <vector>

#include "base/result.hh"
#include "os/child.hh"
#include "os/fd.hh"

namespace godwit::lab {

struct NodeState {
  std::string name;
  std::string site;
  bool is_router = false;
  bool has_agent = false;  // unless the lab has none at all
  std::string ipv4;        // empty: it has none
  std::string ipv6;
  std::vector<std::string> announced;  // under which others shall find its agent, best first
  bool behind_nat = false;
  os::ProcessIdentity init;  // pid -1: powered off
  bool running() const { return init.pid > 0; }
};

struct LabState {
  std::string name;
  os::ProcessIdentity holder;
  os::ProcessIdentity emulator;
  bool agents = false;  // `lab up --no-agents` makes a lab without
  std::vector<NodeState> nodes;

  const NodeState* find(std::string_view node) const;
};

class StateDirectory final {
 public:
  explicit StateDirectory(const std::string& lab_name);  // touches nothing

  const std::string& path() const { return path_; }
  std::string file(std::string_view name) const { return fmt::format("{}/{}", path_, name); }
  void make() const;  // 0700; throws SetupError
  // Takes the lock without waiting; empty when another holds it. Passed on by inheritance.
  os::Fd try_lock() const;
  Result<LabState> load() const;
  void save(const LabState& state) const;  // throws SetupError
  void remove() const;                     // the files above; what is not ours stays
  bool exists() const;

 private:
  std::string path_;
};

// The names of all labs of this user that left a directory, running or crashed.
std::vector<std::string> known_labs();

// Ends what a crashed lab may have left: every recorded process that is still the same, then the
// directory. The caller holds the lock.
void clean_up(const StateDirectory& directory);

std::string read_file(const std::string& path, std::size_t limit);  // throws SetupError
void write_file(const std::string& path, std::string_view text, mode_t mode = 0600);  // throws

}  // namespace godwit::lab
