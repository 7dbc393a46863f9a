#pragma once
// Everything that could make a move fail and can be known before anything is touched. Each check
// has a name, a verdict and a sentence; one that fails refuses the move (exit status 3).
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "agent/source_move.hh"

namespace godwit::agent {

struct Check {
  std::string name;
  bool ok = false;
  std::string detail;
};
nlohmann::json to_json(const std::vector<Check>& checks);
// A file that the agent may open.
bool is_readable(const std::string& path);
// As a peer answered them, {checks}.
std::vector<Check> parse_checks(const nlohmann::json& reply);
// What of a vm's disks keeps this host from taking them: images, and room for `needed`.
std::vector<Check> disk_checks(const Config& config, Disks& disks, const qemu::VmSpec& vm,
                               ByteCount needed);
bool all_ok(const std::vector<Check>& checks);
std::string failures(const std::vector<Check>& checks);

// Asks QEMU here and the target's agent; `done` is called once, later.
// What of the move's options both hosts have to be able to.
struct Wish {
  bool compact = true;
  bool postcopy = false;
};
void preflight(const SourceMove::Context& context, Vm& vm, const std::string& to, Wish wish,
               std::function<void(std::vector<Check>)> done);

// The target's part, as it answers migration.preflight: {spec, peers, path_mtu} -> {checks}.
nlohmann::json answer_preflight(const SourceMove::Context& context, const std::string& from,
                                const nlohmann::json& body);

}  // namespace godwit::agent
