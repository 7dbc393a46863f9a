#pragma once
// What is, written down: as a file that `apply` takes and that changes nothing, and as a picture.
#include <string>

#include "topology/model.hh"

namespace godwit::topology {

// What the topology of that name has made.
Actual part_of(const Actual& actual, const std::string& topology);

// YAML; `name` of the topology, empty: without. States are in comments.
std::string to_yaml(const Actual& actual, const std::string& name);

// For Graphviz: sites around hosts, around components, vms and ports; wires by their state.
std::string to_dot(const Actual& actual);

}  // namespace godwit::topology
