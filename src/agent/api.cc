// Routes of the host and the fleet: itself, its hosts, users, events, the audit log, metrics.
#include "agent/api.hh"

#include <charconv>

#include "agent/api_answers.hh"
#include "session/invite.hh"

namespace godwit::agent {
namespace {

using http::Access;
using http::Request;
using http::Responder;

void add_host_routes(http::Server& server, Parts parts) {
  server.route("GET", "/v1/host", [parts](const Request& request, Responder responder) {
    nlohmann::json host = parts.fleet.describe();
    host["version"] = GODWIT_VERSION;
    host["capabilities"] = qemu::to_json(parts.host.vms.host());
    host["accelerator"] = to_text(parts.host.vms.host().accelerator);
    if (!parts.host.vms.notice().empty()) host["notice"] = parts.host.vms.notice();
    if (const auto kept = parts.store.catch_up(); !kept) host["notice"] = kept.error().text;
    host["you"] = to_json(*request.caller);
    host["you"]["tenant"] = request.caller->tenant;
    parts.host.network.describe_datagrams(
        [later = shared(responder), host = std::move(host)](const nlohmann::json& known) mutable {
          host.update(known);
          later->json(200, host);
        });
  });
  server.route("GET", "/v1/hosts", [parts](const Request&, Responder responder) {
    responder.json(200, parts.fleet.hosts());
  });
  server.route(
      "POST", "/v1/invites", Access::root, [parts](const Request& request, Responder responder) {
        const auto body = body_of(request, responder);
        if (!body) return;
        const auto ttl = body->contains("ttl") ? parse_duration(text_field_or(*body, "ttl", ""))
                                               : Result<Nanoseconds>(session::kInviteLife);
        if (!ttl) return responder.error(kBadRequest, ttl.error().text, 2);
        answer(responder, parts.fleet.invite(*ttl));
      });
  server.route("POST", "/v1/join", Access::root,
               [parts](const Request& request, Responder responder) {
                 const auto body = body_of(request, responder);
                 if (!body) return;
                 const auto target = text_field(*body, "target");
                 if (!target) return responder.error(kBadRequest, target.error().text, 2);
                 parts.fleet.join(
                     *target, [later = shared(responder)](const Result<nlohmann::json>& result) {
                       answer(*later, result);
                     });
               });
}

void add_user_routes(http::Server& server, Parts parts) {
  server.route("GET", "/v1/users", Access::root, [parts](const Request&, Responder responder) {
    responder.json(200, parts.users.list());
  });
  server.route("POST", "/v1/users", Access::root,
               [parts](const Request& request, Responder responder) {
                 const auto body = body_of(request, responder);
                 if (!body) return;
                 const auto made = parts.users.add(*body);
                 if (!made) return responder.error(kConflict, made.error().text);
                 responder.json(201, *made);
               });
  server.route("DELETE", "/v1/users/{name}", Access::root,
               [parts](const Request& request, Responder responder) {
                 answer(responder, parts.users.remove(request.parameter("name")));
               });
}

// Seconds since 1970; absent: from the beginning.
Result<std::int64_t> since_of(const Request& request) {
  const auto found = request.query.find("since");
  if (found == request.query.end()) return 0;
  const std::string& text = found->second;
  std::int64_t since = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), since);
  if (parsed.ec != std::errc{} || parsed.ptr != text.data() + text.size()) {
    return fail("'since' is a time in seconds since 1970, not '{}'", text);
  }
  return since;
}

void add_record_routes(http::Server& server, Parts parts) {
  server.route("GET", "/v1/events", [parts](const Request& request, Responder responder) {
    parts.events.subscribe(responder.events(), request.caller->tenant, request.last_event_id);
  });
  server.route("GET", "/v1/audit", [parts](const Request& request, Responder responder) {
    const auto since = since_of(request);
    if (!since) return responder.error(kBadRequest, since.error().text, 2);
    responder.json(200, parts.audit.list(*since, request.caller->tenant));
  });
  server.route("GET", "/metrics", [parts](const Request& request, Responder responder) {
    parts.metrics.text(request.caller->tenant, [later = shared(responder)](std::string text) {
      later->send({.content_type = Metrics::kContentType, .body = std::move(text)});
    });
  });
  server.route("GET", "/v1/openapi.json", [](const Request&, Responder responder) {
    responder.send({.body = std::string(kOpenApiDocument)});
  });
}

}  // namespace

void add_routes(http::Server& server, Parts parts) {
  add_host_routes(server, parts);
  add_user_routes(server, parts);
  add_record_routes(server, parts);
  add_network_routes(server, parts);
  add_trust_routes(server, parts);
  add_component_routes(server, parts);
  add_image_routes(server, parts);
  add_replica_routes(server, parts);
  add_fabric_routes(server, parts);
  add_rule_routes(server, parts);
  add_vm_routes(server, parts);
  add_migration_routes(server, parts);
  add_batch_route(server, parts);
}

}  // namespace godwit::agent
