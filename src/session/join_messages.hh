#pragma once
// JSON of the join protocol, for its two sides only.
#include <nlohmann/json_fwd.hpp>

#include "session/join.hh"

namespace godwit::session {

constexpr const char* kJoinMethod = "join";
constexpr std::size_t kMaxKnownAddresses = 16;

// {"host": NAME, "site": NAME, "addresses": [TEXT]}
nlohmann::json to_json(const KnownHost& host);
// Refuses names that are not valid and addresses that are not numeric.
Result<KnownHost> known_host_from_json(const nlohmann::json& value);

}  // namespace godwit::session
