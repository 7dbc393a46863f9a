// Routes of the rules of displaced guests. They are the fabric's, of guests of every tenant.
#include "agent/api.hh"
#include "agent/api_answers.hh"
#include "agent/fleet_rules.hh"

namespace godwit::agent {
namespace {

using http::Request;
using http::Responder;

bool sees_rules(const Request& request, Responder& responder) {
  if (request.caller->tenant.empty()) return true;
  responder.error(
      kForbidden,
      fmt::format("the rules of devices are of guests of every tenant; {} is of {} only",
                  request.caller->name, request.caller->tenant));
  return false;
}

FleetRules::Done answer_with(Responder& responder) {
  return [later = shared(responder)](const nlohmann::json& answer) { later->json(200, answer); };
}

void prune(Parts parts, const Request& request, Responder responder) {
  const auto body = body_of(request, responder);
  if (!body || !sees_rules(request, responder)) return;
  FleetRules fleet = fleet_rules(parts);
  if (!body->contains("guest")) return fleet.repair(answer_with(responder));
  const auto guest = text_field(*body, "guest");
  if (!guest || guest->empty()) {
    return responder.error(kBadRequest, "'guest' is the id of one, see godwit rule ls --all", 2);
  }
  fleet.forget(*guest, answer_with(responder));
}

}  // namespace

FleetRules fleet_rules(Parts parts) {
  std::vector<std::string> hosts;
  for (const auto& [host, addresses] : parts.fleet.host_addresses()) hosts.push_back(host);
  return {parts.host.device, parts.fleet, std::move(hosts)};
}

void add_rule_routes(http::Server& server, Parts parts) {
  server.route("GET", "/v1/rules", [parts](const Request& request, Responder responder) {
    if (sees_rules(request, responder)) responder.json(200, parts.host.device.describe());
  });
  server.route("GET", "/v1/fleet-rules", [parts](const Request& request, Responder responder) {
    if (!sees_rules(request, responder)) return;
    fleet_rules(parts).list(answer_with(responder));
  });
  server.route("GET", "/v1/rules/verify", [parts](const Request& request, Responder responder) {
    if (!sees_rules(request, responder)) return;
    fleet_rules(parts).verify(answer_with(responder));
  });
  server.route("POST", "/v1/rules/prune", [parts](const Request& request, Responder responder) {
    prune(parts, request, std::move(responder));
  });
}

}  // namespace godwit::agent
