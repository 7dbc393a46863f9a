// Routes of components.
#include <fmt/ranges.h>

#include <algorithm>

#include "agent/api.hh"
#include "agent/api_answers.hh"

namespace godwit::agent {
namespace {

using http::Request;
using http::Responder;

// Its name, or the 404 was sent.
std::optional<std::string> component_of(Parts parts, const Request& request, Responder& responder) {
  const std::string& name = request.parameter("name");
  const auto component = parts.host.components.show(name);
  const bool is_known = known(component, component && sees(request, *component), "component", name,
                              parts.config.name, responder)
                            .has_value();
  return is_known ? std::optional(name) : std::nullopt;
}

// False: it may run elsewhere by now; that was answered.
bool is_at_rest(Parts parts, const std::string& name, Responder& responder) {
  if (!parts.host.migrations.is_moving(std::string(kComponentPrefix) + name)) return true;
  responder.error(kConflict, fmt::format("component {} is migrating: abort that first", name));
  return false;
}

}  // namespace

void add_component_routes(http::Server& server, Parts parts) {
  server.route("GET", "/v1/components", [parts](const Request& request, Responder responder) {
    responder.json(200, seen(request, parts.host.components.list()));
  });
  server.route("POST", "/v1/components", [parts](const Request& request, Responder responder) {
    auto body = body_of(request, responder);
    if (!body || !claim_tenant(request, *body, responder)) return;
    answer(responder, parts.host.components.add(*body));
  });
  server.route("GET", "/v1/components/{name}",
               [parts](const Request& request, Responder responder) {
                 const auto name = component_of(parts, request, responder);
                 if (!name) return;
                 parts.host.components.show(
                     *name, [later = shared(responder)](const nlohmann::json& component) {
                       later->json(200, component);
                     });
               });
  server.route("POST", "/v1/components/{name}",
               [parts](const Request& request, Responder responder) {
                 const auto body = body_of(request, responder);
                 if (!body) return;
                 const auto name = component_of(parts, request, responder);
                 if (name && is_at_rest(parts, *name, responder)) {
                   answer(responder, parts.host.components.set(*name, *body));
                 }
               });
  server.route(
      "GET", "/v1/components/{name}/{table}", [parts](const Request& request, Responder responder) {
        const auto name = component_of(parts, request, responder);
        if (!name) return;
        const auto tables = parts.host.components.tables(*name);
        const std::string& table = request.parameter("table");
        if (std::ranges::find(tables, table) == tables.end()) {
          return responder.error(kNotFound, fmt::format("component {} has no {}, but {}", *name,
                                                        table, fmt::join(tables, ", ")));
        }
        parts.host.components.table(*name, table, [later = shared(responder)](const auto& rows) {
          later->json(200, rows);
        });
      });
  server.route("DELETE", "/v1/components/{name}",
               [parts](const Request& request, Responder responder) {
                 const auto component = parts.host.components.show(request.parameter("name"));
                 if (component && !sees(request, *component)) return answer(responder, Result<>{});
                 if (!is_at_rest(parts, request.parameter("name"), responder)) return;
                 answer(responder, parts.host.components.remove(request.parameter("name")));
               });
}

}  // namespace godwit::agent
