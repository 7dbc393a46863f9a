#pragma once
// What a preflight finds out: checks with a name, a verdict and a sentence; one that fails refuses
// the move (exit status 3).
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "agent/volumes.hh"

namespace godwit::agent {

struct Check {
  std::string name;
  bool ok = false;
  std::string detail;
};
Check passed(std::string name, std::string detail);
Check failed(std::string name, std::string detail);
bool all_ok(const std::vector<Check>& checks);
std::string failures(const std::vector<Check>& checks);
nlohmann::json to_json(const std::vector<Check>& checks);

// What a host answered, {checks, shared_disks?, disks_there?, volumes?}.
struct Findings {
  std::vector<Check> checks;
  bool shared_disks = false;
  VolumeSights volumes{};   // as it saw them
  ByteCount disks_there{};  // of what is to come
  // How its uplinks follow it (Relocations::plan()); null: they cannot.
  nlohmann::json network{};
};
nlohmann::json to_json(const Findings& findings);
Findings parse_findings(const nlohmann::json& reply);

}  // namespace godwit::agent
