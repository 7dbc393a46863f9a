#include "agent_moves.hh"

namespace godwit::sim {

namespace {

constexpr Nanoseconds kAskTimeout = seconds(5);

}  // namespace

// ---- ports, as agent/network.cc has them ----

void Agent::run_ports(TargetMove& move) {
  if (!std::exchange(move.holding, false)) return;
  at_engine([&](Engines& engine, Instant now) { engine.run(move.port(), now); });
  const std::string port = move.port().text();
  held_ready_.erase(port);
  if (const auto arrived = arriving_ports_.extract(port))
    store_->put("port", port, arrived.mapped());
  if (const auto wire = arriving_wires_.extract(port)) store_->put("wire", port, wire.mapped());
}

void Agent::open_ports() {
  at_engine([&](Engines& engine, Instant now) {
    for (const auto& document : store_->list("port")) {
      engine.add_port({*PortId::parse(document.key), document.body["epoch"], "default"}, now);
    }
    for (const auto& document : store_->list("wire")) {
      engine.connect(wire_of(document.body), now);
    }
  });
}

wire::WireConfig Agent::wire_of(const Json& record) const {
  return {*WireId::parse(record["id"].get<std::string>()),
          *PortId::parse(record["local"].get<std::string>()),
          *PortId::parse(record["remote"].get<std::string>()), record["remote_epoch"],
          record["remote_host"]};
}

void Agent::wire_event(const wire::Event& event) {
  const std::string port = event.port.text();
  guarded([&] {
    switch (event.kind) {
      case wire::EventKind::prepared:
        held_ready_.insert(port);
        for (const auto& [id, move] : targets_) {
          if (move->port() != event.port || !move->holding || move->ports_held) continue;
          move->ports_held = true;
          if (move->listening) move->queue.feed(TE::prepared, {});
        }
        return;
      case wire::EventKind::moved_away:
        if (const auto leaving = leaving_.extract(port)) leaving.mapped()();
        return;
      case wire::EventKind::peer_moved:
        if (const auto held = arriving_wires_.find(port); held != arriving_wires_.end()) {
          held->second["remote_host"] = event.host;
          held->second["remote_epoch"] = event.epoch;
        }
        if (auto wire = store_->find("wire", port)) {
          (*wire)["remote_host"] = event.host;
          (*wire)["remote_epoch"] = event.epoch;
          store_->put("wire", port, *wire);
        }
        return;
      case wire::EventKind::peer_unknown:
        return look_up_peer(event.port);
      case wire::EventKind::overflow:
        return cloud_.fail("a held buffer overflowed");
      default:
        return;
    }
  });
}

void Agent::look_up_peer(const PortId& port) {
  const auto wire = store_->find("wire", port.text());
  if (!wire) return;
  const auto answered = [this, key = port.text()](const std::string& host, const Json& found) {
    auto known = store_->find("wire", key);
    if (!known || found.is_null() || found["epoch"] < (*known)["remote_epoch"]) return;
    (*known)["remote_epoch"] = found["epoch"];
    (*known)["remote_host"] = host;
    store_->put("wire", key, *known);
    at_engine([&](Engines& engine, Instant now) { engine.connect(wire_of(*known), now); });
  };
  const Json body = {{"id", (*wire)["remote"]}};
  const auto here = store_->find("port", body["id"].get<std::string>());
  answered(host_, here ? *here : Json());
  for (const std::string& peer : cloud_.world().names()) {
    if (peer == host_ || !cloud_.world().is_connected(host_, peer)) continue;
    ask(peer, "port.find", body, kAskTimeout, [answered, peer](const Reply& reply) {
      if (reply.kind == Reply::Kind::ok) answered(peer, reply.body);
    });
  }
}

}  // namespace godwit::sim
