// Routes of replicas.
#include "agent/api.hh"
#include "agent/api_answers.hh"

namespace godwit::agent {
namespace {

using http::Request;
using http::Responder;

// The replica as the API shows it, or the 404 was sent.
std::optional<nlohmann::json> replica_of(Parts parts, const Request& request,
                                         Responder& responder) {
  const std::string& vm = request.parameter("vm");
  const std::string& to = request.parameter("to");
  const auto replica = parts.host.replicas.show(vm, to);
  return known(replica, replica && sees(request, *replica), "replica", vm + " at " + to,
               parts.config.name, responder);
}

}  // namespace

void add_replica_routes(http::Server& server, Parts parts) {
  server.route("GET", "/v1/replicas", [parts](const Request& request, Responder responder) {
    responder.json(200, seen(request, parts.host.replicas.list()));
  });
  server.route("POST", "/v1/replicas", [parts](const Request& request, Responder responder) {
    if (const auto body = body_of(request, responder)) {
      parts.host.replicas.add(*body, request.caller->tenant, std::move(responder));
    }
  });
  server.route("GET", "/v1/replicas/{vm}/{to}",
               [parts](const Request& request, Responder responder) {
                 if (const auto replica = replica_of(parts, request, responder)) {
                   responder.json(200, *replica);
                 }
               });
  server.route("POST", "/v1/replicas/{vm}/{to}/sync",
               [parts](const Request& request, Responder responder) {
                 if (!replica_of(parts, request, responder)) return;
                 answer(responder,
                        parts.host.replicas.sync(request.parameter("vm"), request.parameter("to")));
               });
  server.route("DELETE", "/v1/replicas/{vm}/{to}",
               [parts](const Request& request, Responder responder) {
                 if (!replica_of(parts, request, responder)) return;
                 const auto force = request.query.find("force");
                 parts.host.replicas.remove(
                     request.parameter("vm"), request.parameter("to"),
                     force != request.query.end() && force->second == "true",
                     [to = shared(responder)](const Result<>& done) { answer(*to, done); });
               });
}

}  // namespace godwit::agent
