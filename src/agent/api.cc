#include "agent/api.hh"

#include <nlohmann/json.hpp>

#include "agent/console.hh"
#include "session/invite.hh"

namespace godwit::agent {
namespace {

using http::Request;
using http::Responder;

constexpr int kBadRequest = 400;
constexpr int kNotFound = 404;
constexpr int kConflict = 409;

// The body as JSON, or the 400 was sent.
std::optional<nlohmann::json> body_of(const Request& request, Responder& responder) {
  auto body = http::json_body(request);
  if (body) return *std::move(body);
  responder.error(kBadRequest, body.error().text, 2);
  return std::nullopt;
}

void answer(Responder& responder, const Result<>& result) {
  if (!result) return responder.error(kConflict, result.error().text);
  responder.json(200, nlohmann::json::object());
}

void answer(Responder& responder, const Result<nlohmann::json>& result) {
  if (!result) return responder.error(kConflict, result.error().text);
  responder.json(200, *result);
}

std::shared_ptr<Responder> shared(Responder& responder) {
  return std::make_shared<Responder>(std::move(responder));
}

void add_host_routes(http::Server& server, Parts parts) {
  server.route("GET", "/v1/host", [parts](const Request&, Responder responder) {
    nlohmann::json host = parts.fleet.describe();
    host["version"] = GODWIT_VERSION;
    host["capabilities"] = qemu::to_json(parts.vms.host());
    host["accelerator"] = to_text(parts.vms.host().accelerator);
    if (!parts.vms.notice().empty()) host["notice"] = parts.vms.notice();
    if (const auto kept = parts.store.catch_up(); !kept) host["notice"] = kept.error().text;
    responder.json(200, host);
  });
  server.route("GET", "/v1/hosts", [parts](const Request&, Responder responder) {
    responder.json(200, parts.fleet.hosts());
  });
  server.route("POST", "/v1/invites", [parts](const Request& request, Responder responder) {
    const auto body = body_of(request, responder);
    if (!body) return;
    const auto ttl = body->contains("ttl") ? parse_duration(text_field_or(*body, "ttl", ""))
                                           : Result<Nanoseconds>(session::kInviteLife);
    if (!ttl) return responder.error(kBadRequest, ttl.error().text, 2);
    answer(responder, parts.fleet.invite(*ttl));
  });
  server.route("POST", "/v1/join", [parts](const Request& request, Responder responder) {
    const auto body = body_of(request, responder);
    if (!body) return;
    const auto target = text_field(*body, "target");
    if (!target) return responder.error(kBadRequest, target.error().text, 2);
    parts.fleet.join(*target, [later = shared(responder)](const Result<nlohmann::json>& result) {
      answer(*later, result);
    });
  });
  server.route("GET", "/v1/events", [parts](const Request&, Responder responder) {
    parts.events.subscribe(responder.events());
  });
}

void add_network_routes(http::Server& server, Parts parts) {
  server.route("GET", "/v1/ports", [parts](const Request&, Responder responder) {
    parts.network.list_ports(
        [later = shared(responder)](const nlohmann::json& list) { later->json(200, list); });
  });
  server.route("POST", "/v1/ports", [parts](const Request& request, Responder responder) {
    if (const auto body = body_of(request, responder)) {
      answer(responder, parts.network.add_port(*body));
    }
  });
  server.route("DELETE", "/v1/ports/{name}", [parts](const Request& request, Responder responder) {
    answer(responder, parts.network.remove_port(request.parameter("name")));
  });
  server.route("GET", "/v1/wires", [parts](const Request&, Responder responder) {
    parts.network.list_wires(
        [later = shared(responder)](const nlohmann::json& list) { later->json(200, list); });
  });
  const auto both_ends = [parts](bool connect) {
    return [parts, connect](const Request& request, Responder responder) {
      const auto body = body_of(request, responder);
      if (!body) return;
      const auto a = text_field(*body, "a");
      const auto b = text_field(*body, "b");
      if (!a || !b) return responder.error(kBadRequest, "name both ports: {\"a\", \"b\"}", 2);
      Network::Done done = [later = shared(responder)](const Result<>& result) {
        answer(*later, result);
      };
      if (connect) return parts.network.connect(*a, *b, std::move(done));
      parts.network.disconnect(*a, *b, std::move(done));
    };
  };
  server.route("POST", "/v1/wires", both_ends(true));
  server.route("DELETE", "/v1/wires", both_ends(false));
}

void add_vm_routes(http::Server& server, Parts parts) {
  server.route("GET", "/v1/vms", [parts](const Request&, Responder responder) {
    responder.json(200, parts.vms.list());
  });
  server.route("GET", "/v1/vms/{name}", [parts](const Request& request, Responder responder) {
    const auto vm = parts.vms.show(request.parameter("name"));
    if (vm) return responder.json(200, *vm);
    responder.error(kNotFound, fmt::format("there is no vm '{}' on host {}; see godwit vm ls",
                                           request.parameter("name"), parts.config.name));
  });
  server.route("POST", "/v1/vms", [parts](const Request& request, Responder responder) {
    const auto body = body_of(request, responder);
    if (!body) return;
    const auto vm = parts.vms.run(*body);
    if (!vm) return responder.error(kConflict, vm.error().text);
    responder.json(201, *parts.vms.show((*vm)->name()));
  });
  server.route("POST", "/v1/vms/{name}/stop", [parts](const Request& request, Responder responder) {
    const auto body = body_of(request, responder);
    if (!body) return;
    const bool force = body->contains("force") && (*body)["force"] == true;
    parts.vms.stop(request.parameter("name"), force,
                   [to = shared(responder)](const Result<>& result) { answer(*to, result); });
  });
  server.route("DELETE", "/v1/vms/{name}", [parts](const Request& request, Responder responder) {
    const std::string& name = request.parameter("name");
    if (parts.migrations.is_moving(name)) {
      return responder.error(kConflict, fmt::format("vm {} is migrating: abort that first", name));
    }
    answer(responder, parts.vms.remove(name));
  });
  server.route(
      "GET", "/v1/vms/{name}/console", [parts](const Request& request, Responder responder) {
        Vm* vm = parts.vms.find(request.parameter("name"));
        if (vm == nullptr) {
          return responder.error(
              kNotFound, fmt::format("there is no running vm '{}'", request.parameter("name")));
        }
        open_console(parts.loop, vm->paths().console().string(), std::move(responder));
      });
}

void add_migration_routes(http::Server& server, Parts parts) {
  server.route("POST", "/v1/migrations", [parts](const Request& request, Responder responder) {
    if (const auto body = body_of(request, responder)) {
      parts.migrations.add(*body, std::move(responder));
    }
  });
  server.route("GET", "/v1/migrations", [parts](const Request&, Responder responder) {
    responder.json(200, parts.migrations.list());
  });
  server.route("GET", "/v1/migrations/{id}", [parts](const Request& request, Responder responder) {
    const auto migration = parts.migrations.show(request.parameter("id"));
    if (migration) return responder.json(200, *migration);
    responder.error(kNotFound, fmt::format("there is no migration '{}' on host {}",
                                           request.parameter("id"), parts.config.name));
  });
  server.route("GET", "/v1/migrations/{id}/events",
               [parts](const Request& request, Responder responder) {
                 const std::string& id = request.parameter("id");
                 if (!parts.migrations.show(id)) {
                   return responder.error(kNotFound, fmt::format("there is no migration '{}'", id));
                 }
                 const auto followed = parts.migrations.follow(id, responder.events());
                 (void)followed;  // known a moment ago; a target's stream just ends
               });
  const auto steer = [&](const char* verb, auto method) {
    server.route("POST", std::string("/v1/migrations/{id}/") + verb,
                 [parts, method](const Request& request, Responder responder) {
                   const auto body = body_of(request, responder);
                   if (!body) return;
                   answer(responder, method(parts.migrations, request.parameter("id"), *body));
                 });
  };
  using Json = nlohmann::json;
  steer("cutover", [](Migrations& m, const std::string& id, const Json&) { return m.cutover(id); });
  steer("abort", [](Migrations& m, const std::string& id, const Json&) { return m.abort(id); });
  steer("set", [](Migrations& m, const std::string& id, const Json& b) { return m.set(id, b); });
  steer("resolve", [](Migrations& m, const std::string& id, const Json& b) {
    const auto said = [&](const char* word) { return b.contains(word) && b[word] == true; };
    using enum Migrations::Destroyed;
    return m.resolve(id, said("target_destroyed")   ? target
                         : said("source_destroyed") ? source
                                                    : none);
  });
}

}  // namespace

void add_routes(http::Server& server, Parts parts) {
  add_host_routes(server, parts);
  add_network_routes(server, parts);
  add_vm_routes(server, parts);
  add_migration_routes(server, parts);
}

}  // namespace godwit::agent
