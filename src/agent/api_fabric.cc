// Routes of the fabric, a routed data centre, and of what follows guests through it: which are
// where, too.
#include "agent/api.hh"
#include "agent/api_answers.hh"

namespace godwit::agent {

using http::Access;
using http::Request;
using http::Responder;

void add_fabric_routes(http::Server& server, Parts parts) {
  server.route("GET", "/v1/fabric", [parts](const Request& request, Responder responder) {
    if (!request.caller->tenant.empty()) {
      return responder.error(kForbidden, "the fabric is for those who see all tenants");
    }
    nlohmann::json fabric = parts.host.fabrics.describe();
    fabric["relocations"] = parts.host.relocations.describe();
    fabric["relays"] = parts.host.endpoint.relays.describe();
    fabric["associations"] = parts.host.endpoint.associations.describe();
    responder.json(200, fabric);
  });
  server.route("GET", "/v1/mappings", [parts](const Request& request, Responder responder) {
    // What is agreed about guests elsewhere has no tenant.
    auto associations = request.caller->tenant.empty() ? parts.host.endpoint.associations.describe()
                                                       : nlohmann::json::array();
    parts.host.mappings.list(request.caller->tenant,
                             [later = shared(responder),
                              associations = std::move(associations)](nlohmann::json told) mutable {
                               told["associations"] = std::move(associations);
                               later->json(200, told);
                             });
  });
  server.route("POST", "/v1/fabric", Access::root,
               [parts](const Request& request, Responder responder) {
                 const auto file = body_of(request, responder);
                 if (!file) return;
                 if (!file->is_object()) {
                   return responder.error(kBadRequest, "a fabric is an object", 2);
                 }
                 answer(responder, parts.host.fabrics.set(*file));
               });
  server.route("DELETE", "/v1/fabric", Access::root, [parts](const Request&, Responder responder) {
    answer(responder, parts.host.fabrics.set(nullptr));
  });
}

}  // namespace godwit::agent
