#include "store/unknown.hh"

namespace godwit::store {

nlohmann::json with_unknown(const nlohmann::json& before, nlohmann::json body) {
  if (!before.is_object() || !body.is_object()) return body;
  for (const auto& [name, value] : before.items()) {
    const auto at = body.find(name);
    if (at == body.end()) {
      body[name] = value;
    } else {
      *at = with_unknown(value, std::move(*at));
    }
  }
  return body;
}

}  // namespace godwit::store
