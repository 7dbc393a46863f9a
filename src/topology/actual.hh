#pragma once
// What the hosts say, put together.
#include <map>

#include "topology/model.hh"

namespace godwit::topology {

// `hosts`: GET /v1/hosts. `of`: of each that was asked {components, ports, vms, wires}, the answers
// to GET. What is not understood is left out.
Actual actual(const nlohmann::json& hosts, const std::map<std::string, nlohmann::json>& of);

}  // namespace godwit::topology
