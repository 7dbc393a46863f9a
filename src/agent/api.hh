#pragma once
// The local API: HTTP/JSON routes on the agent's unix socket, documented in docs/protocol/api.md.
// Thin: each route parses, calls one of the agent's parts, and answers.
#include "agent/fleet.hh"
#include "agent/migrations.hh"
#include "agent/network.hh"
#include "agent/vms.hh"
#include "http/server.hh"
#include "store/store.hh"

namespace godwit::agent {

struct Parts {
  os::Loop& loop;
  const Config& config;
  Fleet& fleet;
  Network& network;
  Vms& vms;
  Migrations& migrations;
  store::Store& store;
  Events& events;
};

void add_routes(http::Server& server, Parts parts);

}  // namespace godwit::agent
