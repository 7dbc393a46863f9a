#pragma once
// What a newer version wrote into a document stays in it when an older one writes it: a host that
// was upgraded may go back, and forward again (docs/protocol/session.md, "Versions").
#include <nlohmann/json.hpp>

namespace godwit::store {

// `body` with the members that objects of `before` have and it has not. To take one out, write
// null.
nlohmann::json with_unknown(const nlohmann::json& before, nlohmann::json body);

}  // namespace godwit::store
