#pragma once
// A plan of rules (translate/plan_json.hh), and how a guest's uplink followed it, for people.
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace godwit::cli {

// "depart 10.1.1.20 -> 10.1.4.200 (staged)"
std::string rule_text(const nlohmann::json& rule);
std::string plan_text(const nlohmann::json& plan);
// Lines of a migration's report; empty if none was told.
// Of {addresses, direct, relayed, relay_s}: the strategy endpoint.
std::string endpoint_plan_text(const nlohmann::json& plan);
std::string network_part(const nlohmann::json& migration);

}  // namespace godwit::cli
