#pragma once
// The report of a finished migration, and the preflight report of a planned one, for people. Every
// group of times is shown with its sum, and a line for what its parts do not cover, so that what is
// printed visibly adds up.
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace godwit::cli {

// `migration` is the object of GET /v1/migrations/ID; without a report only its outcome is said.
std::string migration_text(const nlohmann::json& migration);
// {ok, checks: [{name, ok, detail}], estimate: {bytes, rtt_ms, memory_bytes?,
// disk_bytes?, disk_there_bytes?, total_s?}}
std::string preflight_text(const nlohmann::json& report);

}  // namespace godwit::cli
