#pragma once
// Reads a topology: docs/protocol/topology.schema.json.
#include <expected>

#include "topology/model.hh"

namespace godwit::topology {

// `default_name`: where the file has none. All that is wrong with it by itself; what is wrong with
// it here (an unknown host) is found by plan().
std::expected<Desired, std::vector<Problem>> parse(const nlohmann::json& file,
                                                   const std::string& default_name);

}  // namespace godwit::topology
