#pragma once
// Which language two agents speak with each other; docs/protocol/session.md, "Versions".
//
// An agent speaks a range of protocols. Two agents use the newest that both speak; where there is
// none they have no session. Each release speaks at least what the one before it spoke best.
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/result.hh"

namespace godwit::session {

// What each added: docs/protocol/session.md.
inline constexpr unsigned kProtocol = 21;
inline constexpr unsigned kOldestProtocol = 1;

struct Versions {
  unsigned protocol = kProtocol;      // newest
  unsigned oldest = kOldestProtocol;  // that is still spoken
  std::string software{};             // "0.2.0"; for people only
  bool operator==(const Versions&) const = default;
};
Versions own_versions();

void add_versions(const Versions& versions, nlohmann::json& hello);
// What a peer said of itself. Members that are missing or no numbers are those of protocol 1, which
// had none.
Versions versions_of(const nlohmann::json& hello);
// The protocol to use with that peer, or why there is none.
Result<unsigned> agree(const Versions& ours, const Versions& theirs, const std::string& peer);

}  // namespace godwit::session
