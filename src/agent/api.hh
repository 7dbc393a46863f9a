#pragma once
// The API: HTTP/JSON routes, the same on the agent's unix socket and for remote users, documented
// in docs/protocol/api.md and openapi.json. Thin: each route parses, calls one of the agent's
// parts, and answers. What a caller's tenant must not see is absent for it.
#include "agent/audit.hh"
#include "agent/fleet.hh"
#include "agent/host_parts.hh"
#include "agent/metrics.hh"
#include "agent/users.hh"
#include "http/server.hh"

namespace godwit::agent {

struct Parts {
  os::Loop& loop;
  const Config& config;
  store::Store& store;
  Events& events;
  Fleet& fleet;
  HostParts& host;
  Users& users;
  Audit& audit;
  Metrics& metrics;
};

void add_routes(http::Server& server, Parts parts);

class FleetRules;
FleetRules fleet_rules(Parts parts);

// By noun; called by add_routes().
void add_image_routes(http::Server& server, Parts parts);
void add_vm_routes(http::Server& server, Parts parts);
void add_network_routes(http::Server& server, Parts parts);
void add_component_routes(http::Server& server, Parts parts);
void add_fabric_routes(http::Server& server, Parts parts);
void add_migration_routes(http::Server& server, Parts parts);
void add_replica_routes(http::Server& server, Parts parts);
void add_rule_routes(http::Server& server, Parts parts);
void add_trust_routes(http::Server& server, Parts parts);
void add_batch_route(http::Server& server, Parts parts);

// docs/protocol/openapi.json, compiled in.
extern const std::string_view kOpenApiDocument;

}  // namespace godwit::agent
