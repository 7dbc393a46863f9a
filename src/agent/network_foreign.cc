// Wires to other fleets. A host of one may do here what is in this file and nothing else: find a
// port that its fleet is trusted for, make and cut a wire to it, and ask whether it is there. What
// it may not know of is to it as if it were not there.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/network.hh"
#include "base/host_name.hh"

namespace godwit::agent {

const PortRecord* Network::port_for(std::string_view fleet, const PortRecord* port) const {
  const bool may = port != nullptr && trusted_ != nullptr &&
                   trusted_->is_trusted(fleet, port->name, port->tenant);
  return may ? port : nullptr;
}

const PortRecord* Network::find(const PortId& id) const {
  const auto at = ports_.find(id);
  return at == ports_.end() ? nullptr : &at->second;
}

void Network::on_foreign_request(PeerRequest request, const nlohmann::json& body) {
  const std::string& method = request.method;
  if (method == "port.find") return request.answer(answer_foreign_find(request.peer, body));
  if (method == "wire.attach") return request.answer(answer_foreign_attach(request.peer, body));
  if (method == "wire.detach") return request.answer(answer_foreign_detach(request.peer, body));
  if (method == "wire.check") return request.answer(answer_foreign_check(request.peer, body));
  if (const auto silent = foreign_refusals_.may_log(loop_.now())) {
    spdlog::warn("host {} asks for {}, which no host of another fleet may{}", request.peer, method,
                 *silent == 0 ? "" : fmt::format(" ({} more before it)", *silent));
  }
  request.answer(fail("hosts of another fleet may not ask for this"));
}

nlohmann::json Network::answer_foreign_find(const std::string& peer,
                                            const nlohmann::json& body) const {
  const auto id = id_field<PortId>(body, "id");
  const PortRecord* found =
      port_for(fleet_of(peer), id ? find(*id) : find(text_field_or(body, "name", "")));
  if (found == nullptr) return nlohmann::json::object();
  return {{"id", found->id.text()}, {"name", found->name}, {"epoch", found->epoch}};
}

// The wire is between one of their ports and this one of ours, whatever else they say: its tenant
// is ours to name.
Result<nlohmann::json> Network::answer_foreign_attach(const std::string& peer,
                                                      const nlohmann::json& body) {
  const auto local = id_field<PortId>(body, "local");
  const PortRecord* port = local ? port_for(fleet_of(peer), find(*local)) : nullptr;
  if (port == nullptr) return fail("there is no such port");
  auto record = parse_wire({{"id", text_field_or(body, "id", "")},
                            {"tenant", port->tenant},
                            {"local", local->text()},
                            {"remote", text_field_or(body, "remote", "")},
                            {"remote_name", text_field_or(body, "remote_name", "")},
                            {"remote_host", peer},
                            {"remote_epoch", epoch_field(body, "remote_epoch", 1)}});
  if (!record) return std::unexpected(record.error());
  const WireRecord* present = wire_at(port->id);
  const bool is_its = present != nullptr && present->id == record->id &&
                      present->remote == record->remote && is_of_fleet(*present, fleet_of(peer));
  if (present != nullptr && !is_its) return fail("port {} has another wire", port->name);
  // Ids are random: one that is here already was not drawn.
  const auto has_id = [&](const auto& wire) { return wire.second.id == record->id; };
  if (find(record->remote) != nullptr || (!is_its && std::ranges::any_of(wires_of_, has_id))) {
    return fail("the ids of this wire are not new");
  }
  if (const auto attached = attach_wire(*record); !attached) {
    return std::unexpected(attached.error());
  }
  return nlohmann::json::object();
}

nlohmann::json Network::answer_foreign_detach(const std::string& peer, const nlohmann::json& body) {
  if (const auto id = id_field<WireId>(body, "id")) cut_of(fleet_of(peer), *id);
  return nlohmann::json::object();
}

// A wire of another fleet's is none that its host may cut, whatever it knows of it.
void Network::cut_of(std::string_view fleet, const WireId& id) {
  const auto is_meant = [&](const auto& wire) {
    return wire.second.id == id && is_of_fleet(wire.second, fleet);
  };
  if (std::ranges::any_of(wires_of_, is_meant)) cut(id);
}

// As within a fleet: what is not here may have moved. A port that they are not trusted for any
// more has no wire of theirs.
nlohmann::json Network::answer_foreign_check(const std::string& peer,
                                             const nlohmann::json& body) const {
  nlohmann::json unknown = nlohmann::json::array();
  for (const auto& entry : array_field(body, "wires")) {
    const auto port = id_field<PortId>(entry, "port");
    const auto id = id_field<WireId>(entry, "id");
    if (!port || !id || find(*port) == nullptr) continue;
    const WireRecord* wire = wire_at(*port);
    const bool is_its = wire != nullptr && wire->id == *id && is_of_fleet(*wire, fleet_of(peer));
    if (!is_its) unknown.push_back(id->text());
  }
  return {{"unknown", unknown}};
}

bool Network::is_of_fleet(const WireRecord& wire, std::string_view fleet) {
  return fleet_of(wire.remote_host) == fleet;
}

void Network::cut_foreign(const std::string& fleet, const std::optional<std::string>& port) {
  std::vector<WireRecord> gone;
  for (const auto* wires : {&wires_of_, &arriving_wires_}) {
    for (const auto& [local, wire] : *wires) {
      const auto& of = wires == &wires_of_ ? ports_ : arriving_;
      const auto at = of.find(local);
      const bool is_meant = !port || (at != of.end() && at->second.name == *port);
      if (is_meant && is_of_fleet(wire, fleet)) gone.push_back(wire);
    }
  }
  for (const auto& wire : gone) {
    arriving_wires_.erase(wire.local);
    cut(wire.id);
    peers_->request(
        wire.remote_host, "wire.detach", {{"id", wire.id.text()}},
        [](const Result<nlohmann::json>&) {}, kForeignTimeout);  // else it learns it later
  }
}

Result<> Network::may_connect_abroad(const Located& ours, const std::string& foreign_host) const {
  if (ours.host != config_.name) {
    return fail("port {} is on host {}: connect it to another fleet's there", ours.name, ours.host);
  }
  if (port_for(fleet_of(foreign_host), find(ours.id)) != nullptr) return {};
  return fail(
      "fleet {0} is not trusted for port {1}: godwit host trust add CARD --port {1}, with a card "
      "of fleet {0}",
      fleet_of(foreign_host), ours.name);
}

nlohmann::json Network::foreign_wires(const std::vector<PortId>& ports) const {
  nlohmann::json wires = nlohmann::json::array();
  for (const PortId& port : ports) {
    const WireRecord* wire = wire_at(port);
    const PortRecord* record = find(port);
    if (wire == nullptr || record == nullptr || !is_foreign(wire->remote_host)) continue;
    wires.push_back({{"port", record->name},
                     {"tenant", record->tenant},
                     {"peer", wire->remote_host},
                     {"ca", trusted_->fingerprint(fleet_of(wire->remote_host))}});
  }
  return wires;
}

Result<> Network::may_take_foreign(const nlohmann::json& wire) const {
  const std::string peer = text_field_or(wire, "peer", "");
  const std::string port = text_field_or(wire, "port", "");
  const std::string fleet(fleet_of(peer));
  const std::string ca = text_field_or(wire, "ca", "");
  if (ca.empty() || trusted_->fingerprint(fleet) != ca ||
      !trusted_->is_trusted(fleet, port, text_field_or(wire, "tenant", ""))) {
    return fail(
        "port {0} has a wire to {1}, whose fleet is not trusted for it at host {2}, or is another "
        "one there: godwit host trust add CARD --port {0} --as {3} at {2}, with the card of {1}; "
        "or "
        "disconnect it first",
        port, peer, config_.name, fleet);
  }
  if (peers_->is_up(peer)) return {};
  return fail("host {} has no session with {}, the other end of the wire at port {}", config_.name,
              peer, port);
}

}  // namespace godwit::agent
