#pragma once
// Everything that could make a move fail and can be known before anything is touched. Each check
// has a name, a verdict and a sentence; one that fails refuses the move (exit status 3).
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "agent/source_move.hh"
#include "agent/volumes.hh"

namespace godwit::agent {

struct Check {
  std::string name;
  bool ok = false;
  std::string detail;
};
nlohmann::json to_json(const std::vector<Check>& checks);
// A file that the agent may open.
bool is_readable(const std::string& path);
// What a host answered, {checks, shared_disks?, disks_there?, volumes?}.
struct Findings {
  std::vector<Check> checks;
  bool shared_disks = false;
  VolumeSights volumes{};   // as it saw them
  ByteCount disks_there{};  // of what is to come
  // How its uplinks follow it (Relocations::plan()); null: they cannot.
  nlohmann::json network{};
};
Findings parse_findings(const nlohmann::json& reply);
nlohmann::json to_json(const Findings& findings);
// Whether this host can take a vm's disks, which take `needed` where they are: of storage that
// this host sees, too, nothing is copied.
Findings find_out_on_disks(const Config& config, Disks& disks, const qemu::VmSpec& vm,
                           ByteCount needed, const Result<StorageMarkerId>& marker);
bool all_ok(const std::vector<Check>& checks);
std::string failures(const std::vector<Check>& checks);

// Asks QEMU here and the target's agent; `done` is called once, later.
// What of the move's options both hosts have to be able to.
struct Wish {
  bool compact = true;
  bool postcopy = false;
  Strategy strategy = Strategy::wire;
  Epoch epoch = 0;  // that its ports would have there
  Leading leading{};
};
void preflight(const SourceMove::Context& context, Vm& vm, const std::string& to, Wish wish,
               std::function<void(Findings)> done);

// The vm's NIC that has an address of that host's network: one whose uplink is at home there, as
// the target's plans tell; else one that was configured, and its wire ends there. Null: it has none
// (strategy secondary-nic).
const qemu::NicSpec* way_out_at(const Network& network, const Vm& vm, const std::string& host,
                                const nlohmann::json& plans);

// Of a preflight's {foreign_wires}: Network::foreign_wires().
std::vector<Check> foreign_checks(const Network& network, const nlohmann::json& body);
// The target's part of migration.preflight: {spec, peers, foreign_wires, path_mtu, disk_bytes,
// marker, volumes?: {key, seen}} -> Findings. `answer` is called once, later where there are
// volumes.
void answer_preflight(const SourceMove::Context& context, const std::string& from,
                      const nlohmann::json& body,
                      std::function<void(Result<nlohmann::json>)> answer);

}  // namespace godwit::agent
