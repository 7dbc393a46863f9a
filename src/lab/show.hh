#pragma once
// `lab ls`: what a lab is made of and how its links do.
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/result.hh"

namespace godwit::lab {

// {"name", "up", "nodes": [{name, site, router, agent, ipv4, ipv6, announced, state, pid}],
//  "links": [...], "delay_error_us": {...}, "scheduling"}; see wan_control.cc for the last three. A
//  lab that is not
// there has "up": false and no nodes.
nlohmann::json describe(const std::string& name);
std::string table_of(const nlohmann::json& lab);

}  // namespace godwit::lab
