#pragma once
// Rules and versions as agents send and keep them (docs/protocol/session.md, rule.set):
//
//   [ {"kind": "depart", "match": "10.1.1.20", "becomes": "10.1.4.200", "staged": true}, ... ]
#include <nlohmann/json_fwd.hpp>

#include "translate/rollout.hh"

namespace godwit::translate {

nlohmann::json to_json(const Rules& rules);
// Input: in order and without doubles afterwards, refused with a reason.
Result<Rules> parse_rules(const nlohmann::json& json);
Result<Phase> parse_phase(std::string_view text);

}  // namespace godwit::translate
