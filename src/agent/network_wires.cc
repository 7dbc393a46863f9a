// Wires: both ends agree through their agents; each keeps its own record. A wire is made at the
// owner of one port, who asks the owner of the other to attach; cut at one end, the other end is
// told, or learns it at the next session (wire.check).
#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>

#include "agent/network.hh"
#include "base/host_name.hh"
#include "os/random.hh"

namespace godwit::agent {
namespace {

constexpr Nanoseconds kAskTimeout = seconds(5);

struct NamedPort {
  std::string host;  // empty: anywhere
  std::string name;
};

NamedPort parse_port(const std::string& text) {
  const auto slash = text.find('/');
  if (slash == std::string::npos) return {.host = {}, .name = text};
  return {.host = text.substr(0, slash), .name = text.substr(slash + 1)};
}

}  // namespace

const WireRecord* Network::wire_at(const PortId& port) const {
  const auto found = wires_of_.find(port);
  return found == wires_of_.end() ? nullptr : &found->second;
}

void Network::save(const WireRecord& record) {
  wires_of_[record.local] = record;
  store_.put(store_kind(record), record.local.text(), to_json(record));
}

wire::WireConfig Network::config_of(const WireRecord& record) const {
  return {.id = record.id,
          .local = record.local,
          .remote = record.remote,
          .remote_epoch = record.remote_epoch,
          .remote_host = record.remote_host};
}

// ---- finding ports ----

nlohmann::json Network::answer_find(const nlohmann::json& body) const {
  const PortRecord* found = find(text_field_or(body, "name", ""));
  if (const auto id = id_field<PortId>(body, "id")) {
    const auto at = ports_.find(*id);
    found = at == ports_.end() ? nullptr : &at->second;
  }
  if (found == nullptr) return nlohmann::json::object();
  return {{"id", found->id.text()},
          {"name", found->name},
          {"tenant", found->tenant},
          {"host", config_.name},
          {"epoch", found->epoch}};
}

// Asks ourselves and everyone with whom there is a session; the name must be found exactly once.
void Network::locate(const std::string& text, const std::string& tenant,
                     std::function<void(Result<Located>)> done) {
  const NamedPort wanted = parse_port(text);
  const bool here = wanted.host.empty() || wanted.host == config_.name;
  if (!here && (peers_ == nullptr || !peers_->is_up(wanted.host))) {
    return done(
        fail("host {} cannot be asked for port {}: there is no session with it; see godwit host {}",
             wanted.host, wanted.name, is_foreign(wanted.host) ? "trust ls" : "ls"));
  }
  struct Search {
    std::size_t open = 1;
    std::vector<Located> found;
    std::vector<std::string> silent;
  };
  auto search = std::make_shared<Search>();
  const bool abroad = is_foreign(wanted.host);
  const auto answered = [search, text, tenant, done, wanted, abroad](const nlohmann::json& json) {
    const auto id = id_field<PortId>(json, "id");
    if (id && (abroad || is_of(text_field_or(json, "tenant", ""), tenant))) {
      // Another fleet's host speaks for itself only, and of no tenant.
      search->found.push_back({.id = *id,
                               .name = abroad ? wanted.name : text_field_or(json, "name", ""),
                               .tenant = abroad ? "" : text_field_or(json, "tenant", ""),
                               .host = abroad ? wanted.host : text_field_or(json, "host", ""),
                               .epoch = epoch_field(json, "epoch", 1)});
    }
    if (--search->open > 0) return;
    if (search->found.size() == 1) return done(search->found.front());
    if (search->found.empty() && abroad && search->silent.empty()) {
      return done(
          fail("host {} shows us no port '{}': has its operator trusted our fleet for it? "
               "(godwit host trust add there)",
               wanted.host, wanted.name));
    }
    if (search->found.empty()) {
      return done(fail("there is no port '{}'{}; see godwit port ls on its host", text,
                       search->silent.empty()
                           ? ""
                           : fmt::format(" (no answer from {})", fmt::join(search->silent, ", "))));
    }
    done(fail("several hosts have a port '{}': write {}/{} or {}/{}", text, search->found[0].host,
              text, search->found[1].host, text));
  };
  const nlohmann::json body = {{"name", wanted.name}};
  // Those who are up are of our own fleet: another one's host is asked when it is named.
  const auto asked = peers_ == nullptr ? std::vector<std::string>{}
                     : abroad          ? std::vector{wanted.host}
                                       : peers_->up();
  for (const auto& peer : asked) {
    if (!wanted.host.empty() && peer != wanted.host) continue;
    ++search->open;
    peers_->request(
        peer, "port.find", body,
        [search, peer, answered](const Result<nlohmann::json>& reply) {
          if (!reply) search->silent.push_back(peer);
          answered(reply ? *reply : nlohmann::json::object());
        },
        kAskTimeout);
  }
  answered(here ? answer_find(body) : nlohmann::json::object());
}

// ---- connect ----

void Network::locate_both(const Ends& ends,
                          std::function<void(Result<std::pair<Located, Located>>)> done) {
  locate(ends.a, ends.tenant, [this, ends, done](const Result<Located>& first) {
    if (!first) return done(std::unexpected(first.error()));
    locate(ends.b, ends.tenant, [first = *first, done](const Result<Located>& second) {
      if (!second) return done(std::unexpected(second.error()));
      done(std::pair(first, *second));
    });
  });
}

void Network::connect(const Ends& ends, Done done) {
  locate_both(ends, [this, topology = ends.topology,
                     shared = std::make_shared<Done>(std::move(done))](const auto& both) {
    if (!both) return (*shared)(std::unexpected(both.error()));
    connect_located(both->first, both->second, topology, std::move(*shared));
  });
}

void Network::connect_located(const Located& a, const Located& b, const std::string& topology,
                              Done done) {
  if (a.id == b.id) return done(fail("port {} cannot be wired to itself", a.name));
  if (is_foreign(a.host) && !is_foreign(b.host)) {
    return connect_located(b, a, topology, std::move(done));
  }
  if (is_foreign(b.host)) {
    const auto may = is_foreign(a.host) ? fail("neither of these ports is of our fleet")
                                        : may_connect_abroad(a, b.host);
    if (!may) return done(std::unexpected(may.error()));
  } else if (a.tenant != b.tenant) {
    return done(fail("port {} is of tenant {}, port {} of tenant {}: wires do not cross tenants",
                     a.name, a.tenant, b.name, b.tenant));
  }
  if (a.host != config_.name && b.host == config_.name)
    return connect_located(b, a, topology, std::move(done));
  if (a.host != config_.name) {
    // Neither is ours: the owner of one does it.
    return peers_->request(
        a.host, "wire.connect",
        {{"a", a.host + "/" + a.name}, {"b", b.host + "/" + b.name}, {"topology", topology}},
        [done = std::move(done)](const Result<nlohmann::json>& reply) mutable {
          done(reply ? Result<>{} : std::unexpected(reply.error()));
        },
        kAskTimeout);
  }
  WireRecord ours{.id = os::random_id<WireId>(),
                  .tenant = a.tenant,
                  .local = a.id,
                  .remote = b.id,
                  .remote_name = b.name,
                  .remote_host = b.host,
                  .remote_epoch = b.epoch,
                  .topology = topology};
  if (const WireRecord* wire = wire_at(a.id)) {
    if (wire->remote != b.id) {
      return done(fail("port {} has a wire to port {} already: disconnect it first", a.name,
                       wire->remote_name));
    }
    ours.id = wire->id;  // repeated: make sure that both ends have it
    ours.topology = wire->topology;
  }
  const WireRecord theirs{.id = ours.id,
                          .tenant = ours.tenant,
                          .local = b.id,
                          .remote = a.id,
                          .remote_name = a.name,
                          .remote_host = a.host,
                          .remote_epoch = a.epoch,
                          .topology = ours.topology};
  ask_attach(theirs, b.host,
             [this, ours, done = std::move(done)](const Result<>& attached) mutable {
               done(attached ? attach_wire(ours) : attached);
             });
}

void Network::ask_attach(const WireRecord& record, const std::string& host, Done done) {
  if (host == config_.name) return done(attach_wire(record));
  nlohmann::json body = to_json(record);
  // What tenants and topologies we have is ours to know.
  if (is_foreign(host)) {
    for (const char* own : {"tenant", "topology"}) body.erase(own);
  }
  peers_->request(
      host, "wire.attach", body,
      [done = std::move(done)](const Result<nlohmann::json>& reply) mutable {
        done(reply ? Result<>{} : std::unexpected(reply.error()));
      },
      kAskTimeout);
}

Result<> Network::attach_wire(const WireRecord& record) {
  const auto port = ports_.find(record.local);
  if (port == ports_.end())
    return fail("host {} has no port {}", config_.name, record.local.text());
  if (port->second.tenant != record.tenant) {
    return fail("port {} is of another tenant", port->second.name);
  }
  const WireRecord* present = wire_at(record.local);
  if (present != nullptr && present->id != record.id) {
    return fail("port {} has a wire to port {} already: disconnect it first", port->second.name,
                present->remote_name);
  }
  const auto kept = store_.record(store_kind(record), record.local.text(), to_json(record));
  if (!kept) return kept;
  wires_of_[record.local] = record;
  wires_.connect(config_of(record));
  tell_of_guests(port->second);
  events_.publish("wire", {{"id", record.id.text()},
                           {"tenant", record.tenant},
                           {"event", "connected"},
                           {"local", port->second.name},
                           {"remote", record.remote_name}});
  return {};
}

// ---- disconnect ----

void Network::disconnect(const Ends& ends, Done done) {
  locate_both(
      ends, [this, ends, shared = std::make_shared<Done>(std::move(done))](const auto& both) {
        if (!both) {
          const bool ours =
              cut_half(ends.a, ends.b, ends.tenant) || cut_half(ends.b, ends.a, ends.tenant);
          return (*shared)(ours ? Result<>{} : std::unexpected(both.error()));
        }
        disconnect_located(both->first, both->second, std::move(*shared));
      });
}

// The other end may be gone for ever, with its vm or its host. If it is only away, its agent learns
// it later.
bool Network::cut_half(const std::string& end, const std::string& other,
                       const std::string& tenant) {
  const NamedPort here = parse_port(end);
  const NamedPort gone = parse_port(other);
  if (!here.host.empty() && here.host != config_.name) return false;
  const PortRecord* port = find(here.name);
  const WireRecord* wire = port == nullptr ? nullptr : wire_at(port->id);
  if (wire == nullptr || !is_of(wire->tenant, tenant) || wire->remote_name != gone.name)
    return false;
  if (!gone.host.empty() && gone.host != wire->remote_host) return false;
  cut(WireId(wire->id));
  return true;
}

void Network::disconnect_located(const Located& a, const Located& b, Done done) {
  const bool b_is_nearer = a.host != config_.name &&
                           (b.host == config_.name || (is_foreign(a.host) && !is_foreign(b.host)));
  if (b_is_nearer) return disconnect_located(b, a, std::move(done));
  if (is_foreign(a.host)) return done(fail("neither of these ports is of our fleet"));
  if (a.host != config_.name) {
    return peers_->request(
        a.host, "wire.disconnect", {{"a", a.host + "/" + a.name}, {"b", b.host + "/" + b.name}},
        [done = std::move(done)](const Result<nlohmann::json>& reply) mutable {
          done(reply ? Result<>{} : std::unexpected(reply.error()));
        },
        kAskTimeout);
  }
  const WireRecord* wire = wire_at(a.id);
  if (wire == nullptr || wire->remote != b.id) return done({});  // not connected: harmless
  const WireId id = wire->id;
  cut(id);
  if (b.host == config_.name) return done({});
  peers_->request(
      b.host, "wire.detach", {{"id", id.text()}},
      [done = std::move(done)](const Result<nlohmann::json>& reply) mutable {
        if (!reply) spdlog::warn("{}; its agent learns it later", reply.error().text);
        done({});
      },
      kAskTimeout);
}

void Network::cut(const WireId& wire) {
  wires_.disconnect(wire);
  std::erase_if(wires_of_, [&](const auto& entry) {
    if (entry.second.id != wire) return false;
    store_.erase(store_kind(entry.second), entry.first.text());
    events_.publish(
        "wire", {{"id", wire.text()}, {"tenant", entry.second.tenant}, {"event", "disconnected"}});
    return true;
  });
}

// ---- peers ----

void Network::on_request(PeerRequest request, const nlohmann::json& body) {
  if (request.method == "port.find") return request.answer(answer_find(body));
  if (request.method == "wire.attach") return request.answer(answer_attach(request.peer, body));
  if (request.method == "wire.connect" || request.method == "wire.disconnect") {
    return answer_connect(std::move(request), body);
  }
  if (request.method == "wire.detach") {
    if (const auto id = id_field<WireId>(body, "id")) cut(*id);
    return request.answer(nlohmann::json::object());
  }
  if (request.method == "wire.check") {
    nlohmann::json unknown = nlohmann::json::array();
    for (const auto& entry : array_field(body, "wires")) {
      const auto port = id_field<PortId>(entry, "port");
      const auto id = id_field<WireId>(entry, "id");
      if (!port || !id || !ports_.contains(*port)) continue;  // moved, or not ours to judge
      const WireRecord* wire = wire_at(*port);
      if (wire == nullptr || wire->id != *id) unknown.push_back(id->text());
    }
    return request.answer(nlohmann::json{{"unknown", unknown}});
  }
  request.answer(fail("unknown request {}", request.method));
}

Result<nlohmann::json> Network::answer_attach(const std::string& peer, const nlohmann::json& body) {
  const auto record = parse_wire(body);
  if (!record) return std::unexpected(record.error());
  if (record->remote_host != peer) {
    return fail("{} speaks for a port of {}", peer, record->remote_host);
  }
  const auto attached = attach_wire(*record);
  if (!attached) return std::unexpected(attached.error());
  return nlohmann::json::object();
}

void Network::answer_connect(PeerRequest request, const nlohmann::json& body) {
  const std::string a = text_field_or(body, "a", "");
  const std::string b = text_field_or(body, "b", "");
  if (parse_port(a).host != config_.name) return request.answer(fail("port {} is not here", a));
  const bool connecting = request.method == "wire.connect";
  Done done = [answer = request.answer](const Result<>& result) {
    if (!result) return answer(std::unexpected(result.error()));
    answer(nlohmann::json::object());
  };
  const Ends ends{.a = a, .b = b, .tenant = {}, .topology = text_field_or(body, "topology", "")};
  if (connecting) return connect(ends, std::move(done));
  disconnect(ends, std::move(done));
}

// A wire that was cut while the session was down is unknown to the peer.
void Network::on_session_up(const std::string& peer) {
  nlohmann::json wires = nlohmann::json::array();
  for (const auto& [port, record] : wires_of_) {
    if (record.remote_host != peer) continue;
    wires.push_back({{"id", record.id.text()}, {"port", record.remote.text()}});
  }
  if (wires.empty()) return;
  peers_->request(
      peer, "wire.check", {{"wires", wires}},
      [this, fleet = std::string(fleet_of(peer))](const Result<nlohmann::json>& reply) {
        if (!reply) return;
        for (const auto& text : texts_field(*reply, "unknown")) {
          if (const auto id = WireId::parse(text)) cut_of(fleet, *id);
        }
      },
      kAskTimeout);
}

// The host that we believed to have the other end does not know it: ask everyone.
void Network::look_up_peer(const PortId& port) {
  const WireRecord* wire = wire_at(port);
  if (wire == nullptr) return;
  const auto answered = [this, port, remote = wire->remote](const std::string& host,
                                                            const nlohmann::json& found) {
    const auto at = wires_of_.find(port);
    const auto id = id_field<PortId>(found, "id");
    if (at == wires_of_.end() || !id || *id != remote) return;
    const Epoch epoch = epoch_field(found, "epoch", 0);
    if (epoch < at->second.remote_epoch || fleet_of(host) != fleet_of(at->second.remote_host)) {
      return;
    }
    at->second.remote_epoch = epoch;
    at->second.remote_host = host;
    save(WireRecord(at->second));
    wires_.connect(config_of(at->second));
  };
  const nlohmann::json body = {{"id", wire->remote.text()}};
  const std::string fleet(fleet_of(wire->remote_host));
  if (fleet.empty()) answered(config_.name, answer_find(body));
  for (const auto& peer : fleet.empty() ? peers_->up() : trusted_->up(fleet)) {
    peers_->request(
        peer, "port.find", body,
        [answered, peer](const Result<nlohmann::json>& reply) {
          if (reply) answered(peer, *reply);
        },
        kAskTimeout);
  }
}

// ---- the wire thread ----

std::string Network::tenant_of(const std::string& port) const {
  const PortRecord* found = find(port);
  return found == nullptr ? std::string() : found->tenant;
}

std::string Network::tenant_of(const PortId& port) const {
  const auto found = ports_.find(port);
  const auto arriving = arriving_.find(port);
  return found != ports_.end()         ? found->second.tenant
         : arriving != arriving_.end() ? arriving->second.tenant
                                       : std::string();
}

void Network::on_wire_event(const wire::Event& event) {
  switch (event.kind) {
    case wire::EventKind::prepared:
      held_ready_.insert(event.port);
      return settle_waiting();
    case wire::EventKind::moved_away:
      if (const auto leaving = leaving_.extract(event.port)) leaving.mapped()();
      return;
    case wire::EventKind::peer_moved:
      // `event.port` is ours; the other end of its wire moved. If we still hold the port, its
      // record is of before the move and is saved when it runs.
      if (const auto held = arriving_wires_.find(event.port); held != arriving_wires_.end()) {
        held->second.remote_host = event.host;
        held->second.remote_epoch = event.epoch;
      }
      if (const auto found = wires_of_.find(event.port); found != wires_of_.end()) {
        found->second.remote_host = event.host;
        found->second.remote_epoch = event.epoch;
        save(WireRecord(found->second));
      }
      return events_.publish("wire", {{"event", "peer moved"},
                                      {"tenant", tenant_of(event.port)},
                                      {"port", event.port.text()},
                                      {"host", event.host},
                                      {"epoch", event.epoch}});
    case wire::EventKind::peer_unknown:
      return look_up_peer(event.port);
    case wire::EventKind::session_needed:
    case wire::EventKind::overflow:
    case wire::EventKind::wire_stopped:
    case wire::EventKind::wire_resumed:
    case wire::EventKind::superseded:
      return events_.publish("wire", {{"event", wire::to_text(event.kind)},
                                      {"tenant", tenant_of(event.port)},
                                      {"port", event.port.text()},
                                      {"host", event.host}});
    case wire::EventKind::path_changed:
    case wire::EventKind::path_lost:
      return on_path_event(event);
  }
}

void Network::list_wires(const std::string& tenant, std::function<void(nlohmann::json)> done) {
  wires_.stats_and_losses([this, tenant, done = std::move(done)](const WireThreads::Stats& stats) {
    nlohmann::json list = nlohmann::json::array();
    for (const auto& [port, record] : wires_of_) {
      if (!is_of(record.tenant, tenant)) continue;
      // A wire within this host is one wire.
      if (record.remote_host == config_.name && record.remote < record.local) continue;
      list.push_back(describe(record, stats));
    }
    done(std::move(list));
  });
}

nlohmann::json Network::describe(const WireRecord& record, const WireThreads::Stats& stats) const {
  const auto local = ports_.find(record.local);
  nlohmann::json json = {
      {"id", record.id.text()},
      {"tenant", record.tenant},
      {"topology", record.topology},
      {"a",
       {{"port", local == ports_.end() ? record.local.text() : local->second.name},
        {"host", config_.name}}},
      {"b", {{"port", record.remote_name}, {"host", record.remote_host}}},
      {"state", "down"}};
  for (const auto& wire : stats.wires) {
    if (wire.wire != record.id || wire.local != record.local) continue;
    json["state"] = wire.state;
    json["epoch"] = wire.epoch;
    json["remote_epoch"] = wire.remote_epoch;
    json["generation"] = wire.generation;
    json["path"] = wire.path ? to_endpoint(*wire.path).text() : "";
    json["via"] = wire.via;
    json["path_state"] = wire.path_state;
    json["mtu"] = wire.path_mtu;
    json["rtt_ms"] = to_ms(wire.rtt);
    json["tx"] = {{"frames", wire.tx_frames}, {"bytes", wire.tx_bytes}};
    json["rx"] = {{"frames", wire.rx_frames}, {"bytes", wire.rx_bytes}};
    json["drops"] = wire.drops;
  }
  return json;
}

}  // namespace godwit::agent
