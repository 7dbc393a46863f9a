#pragma once
// The target's part of a preflight: whether this host can take what is to come.
#include <functional>

#include "agent/findings.hh"
#include "agent/source_move.hh"

namespace godwit::agent {

// A file that the agent may open.
bool is_readable(const std::string& path);
// Whether this host can take a vm's disks, which take `needed` where they are: of storage that
// this host sees, too, nothing is copied.
Findings find_out_on_disks(const Config& config, Disks& disks, const qemu::VmSpec& vm,
                           ByteCount needed, const Result<StorageMarkerId>& marker);
// Of a preflight's {foreign_wires}: Network::foreign_wires().
std::vector<Check> foreign_checks(const Network& network, const nlohmann::json& body);
// Of migration.preflight: {spec, peers, foreign_wires, path_mtu, disk_bytes, marker,
// volumes?: {key, seen}} -> Findings. `answer` is called once, later where there are volumes.
void answer_preflight(const SourceMove::Context& context, const std::string& from,
                      const nlohmann::json& body,
                      std::function<void(Result<nlohmann::json>)> answer);

}  // namespace godwit::agent
