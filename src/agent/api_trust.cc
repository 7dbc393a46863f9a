// Routes of trust in other fleets.
#include "agent/api.hh"
#include "agent/api_answers.hh"

namespace godwit::agent {

using http::Access;
using http::Request;
using http::Responder;

void add_trust_routes(http::Server& server, Parts parts) {
  server.route("GET", "/v1/card", [parts](const Request&, Responder responder) {
    answer(responder, parts.fleet.card());
  });
  server.route("GET", "/v1/trust", [parts](const Request& request, Responder responder) {
    responder.json(200, parts.fleet.trust().list(request.caller->tenant));
  });
  server.route("POST", "/v1/trust", Access::root,
               [parts](const Request& request, Responder responder) {
                 if (const auto body = body_of(request, responder)) {
                   answer(responder, parts.fleet.trust().add(*body));
                 }
               });
  server.route("DELETE", "/v1/trust/{fleet}", Access::root,
               [parts](const Request& request, Responder responder) {
                 std::vector<std::string> ports;
                 if (!request.body.empty()) {
                   const auto body = body_of(request, responder);
                   if (!body) return;
                   ports = texts_field(*body, "ports");
                 }
                 answer(responder, parts.fleet.trust().remove(request.parameter("fleet"), ports));
               });
}

}  // namespace godwit::agent
