// Routes of ports and wires.
#include "agent/api.hh"
#include "agent/api_answers.hh"
#include "agent/fleet_rules.hh"

namespace godwit::agent {
namespace {

using http::Request;
using http::Responder;

// A bridge or an uplink opens the host's own networks: not for one tenant's operator.
bool may_have(const Request& request, const nlohmann::json& port, Responder& responder) {
  if (request.caller->tenant.empty() || text_field_or(port, "kind", "nic") == "nic") return true;
  responder.error(kForbidden,
                  fmt::format("{} may add ports for vms' NICs; bridges and uplinks are for "
                              "operators of every tenant",
                              request.caller->name));
  return false;
}

// In place of "any4" and "any6": one that the fabric has for guests here, or that the port has.
Result<> choose_guest_addresses(Parts parts, nlohmann::json& port) {
  const auto given = port.find("guest_addresses");
  if (given == port.end() || !given->is_array()) return {};
  const PortRecord* same = parts.host.network.find(text_field_or(port, "name", ""));
  for (auto& each : *given) {
    if (each != "any4" && each != "any6") continue;
    const Ip like = parse_ip(each == "any4" ? "0.0.0.0" : "::").value();
    const auto has = [&](const GuestAddress& guest) { return guest.address.is4() == like.is4(); };
    const auto known = same == nullptr ? std::vector<GuestAddress>{} : same->guest;
    const auto found = std::ranges::find_if(known, has);
    const auto chosen = found == known.end() ? parts.host.relocations.free_address(like)
                                             : Result<Ip>(found->address);
    if (!chosen) return std::unexpected(chosen.error());
    each = chosen->text();
  }
  return {};
}

void add_port(Parts parts, const Request& request, Responder responder) {
  auto body = body_of(request, responder);
  if (!body || !claim_tenant(request, *body, responder)) return;
  if (!may_have(request, *body, responder)) return;
  if (auto chosen = choose_guest_addresses(parts, *body); !chosen) {
    return answer(responder, chosen);
  }
  answer(responder, parts.host.network.add_port(*body));
}

// With the rules that devices have of the guest behind it, if it is not at home.
void remove_port(Parts parts, const Request& request, Responder responder) {
  const std::string& name = request.parameter("name");
  const std::optional<PortId> displaced = parts.host.network.displaced_uplink(name);
  if (parts.host.relocations.is_on_its_way(name) && !parts.host.relocations.give_up(name)) {
    return responder.error(
        kConflict, fmt::format("port {} follows its guest to here: wait until it has (godwit "
                               "fabric show)",
                               name));
  }
  const auto removed = parts.host.network.remove_port(name, request.caller->tenant);
  if (!removed || !displaced) return answer(responder, removed);
  fleet_rules(parts).forget(displaced->text(), [later = shared(responder)](const nlohmann::json&) {
    later->json(200, nlohmann::json::object());
  });
}

auto both_ends(Parts parts, void (Network::*method)(const Network::Ends&, Network::Done)) {
  return [parts, method](const Request& request, Responder responder) {
    const auto body = body_of(request, responder);
    if (!body) return;
    const auto a = text_field(*body, "a");
    const auto b = text_field(*body, "b");
    if (!a || !b) return responder.error(kBadRequest, "name both ports: {\"a\", \"b\"}", 2);
    (parts.host.network.*method)(
        {.a = *a,
         .b = *b,
         .tenant = request.caller->tenant,
         .topology = text_field_or(*body, "topology", "")},
        [later = shared(responder)](const Result<>& result) { answer(*later, result); });
  };
}

}  // namespace

void add_network_routes(http::Server& server, Parts parts) {
  server.route("GET", "/v1/ports", [parts](const Request& request, Responder responder) {
    parts.host.network.list_ports(
        request.caller->tenant,
        [later = shared(responder)](const nlohmann::json& list) { later->json(200, list); });
  });
  server.route("POST", "/v1/ports", [parts](const Request& request, Responder responder) {
    add_port(parts, request, std::move(responder));
  });
  server.route("DELETE", "/v1/ports/{name}", [parts](const Request& request, Responder responder) {
    remove_port(parts, request, std::move(responder));
  });
  server.route("GET", "/v1/wires", [parts](const Request& request, Responder responder) {
    parts.host.network.list_wires(
        request.caller->tenant,
        [later = shared(responder)](const nlohmann::json& list) { later->json(200, list); });
  });
  server.route("POST", "/v1/wires", both_ends(parts, &Network::connect));
  server.route("DELETE", "/v1/wires", both_ends(parts, &Network::disconnect));
}

}  // namespace godwit::agent
