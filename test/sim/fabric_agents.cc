#include "fabric_agents.hh"

#include <algorithm>

namespace godwit::sim {
namespace {

constexpr Nanoseconds kTellAgain = milliseconds(500);

}  // namespace

FabricAgents::FabricAgents(const FabricPlan& plan, World& world, Dice& dice, Fail fail)
    : plan_(plan),
      world_(world),
      dice_(dice),
      fail_(std::move(fail)),
      is_fine_(world.weather().is_calm()) {
  const auto& names = world_.names();
  residents_.resize(plan.residents.size());
  for (Resident& each : residents_) each.host = names[dice_.between(0, names.size() - 1)];
  for (std::size_t i = 0; i < plan.ports.size(); ++i) {
    const PlannedPort& port = plan.ports[i];
    by_id_[port.id] = i;
    ports_.push_back({.peer = port.peer, .wire = port.wire});
    if (port.peer) ports_[i].known.host = host_of(plan.ports[*port.peer].resident);
  }
}

// ---- records ----

wire::WireConfig FabricAgents::wire_of(std::size_t port, const Location& peer) const {
  return {.id = ports_[port].wire,
          .local = plan_.ports[port].id,
          .remote = plan_.ports[*ports_[port].peer].id,
          .remote_epoch = peer.epoch,
          .remote_host = peer.host};
}

std::map<net::PortIndex, PortId> FabricAgents::ports_of(std::size_t resident) const {
  std::map<net::PortIndex, PortId> ports;
  for (const std::size_t port : plan_.residents[resident].ports) {
    ports[plan_.ports[port].index] = plan_.ports[port].id;
  }
  return ports;
}

// What an agent that begins does for what its records say is its own. Components have forgotten
// what they had learned.
void FabricAgents::install(std::size_t index) {
  const Resident& resident = residents_[index];
  const PlannedResident& planned = plan_.residents[index];
  at(resident.host, [&](Engines& engine) {
    for (const std::size_t port : planned.ports) {
      engine.add_port({plan_.ports[port].id, resident.epoch, "default"}, world_.now());
      if (ports_[port].peer) engine.connect(wire_of(port, ports_[port].known), world_.now());
    }
    if (planned.is_guest()) return;
    world_.host(resident.host)
        .components()
        ->place(planned.component, planned.make(dice_.word()), ports_of(index), world_.now());
  });
}

void FabricAgents::boot() {
  for (std::size_t i = 0; i < residents_.size(); ++i) install(i);
}

const std::string& FabricAgents::target_of(std::size_t resident) const {
  const Resident& moving = residents_[resident];
  return moving.step == Step::idle ? moving.host : moving.target;
}

// ---- engines ----

std::optional<std::size_t> FabricAgents::guest_at(const std::string& host, const PortId& port) {
  const std::size_t index = plan_.ports[by_id_.at(port)].resident;
  const std::string& name = plan_.residents[index].name;
  const Resident& resident = residents_[index];
  if (!plan_.residents[index].is_guest()) {
    fail_(fmt::format("a frame for {} at {}, where it is not", name, host));
  } else if (resident.host != host) {
    fail_(fmt::format("a frame for {} at {}, but it is at {}", name, host, resident.host));
  } else if (!resident.runs) {
    fail_(fmt::format("a frame for {} in its pause", name));
  } else {
    return index;
  }
  return std::nullopt;
}

void FabricAgents::send(std::size_t index, Bytes frame) {
  Resident& resident = residents_[index];
  if (!resident.runs) return resident.outbox.push_back(std::move(frame));
  at(resident.host, [&](Engines& engine) {
    const BytesView view = frame;
    engine.frames_from_port(plan_.ports[plan_.residents[index].ports.front()].id, {&view, 1},
                            world_.now());
  });
}

void FabricAgents::send_rest(std::size_t index) {
  expect_one(index);
  for (Bytes& frame : std::exchange(residents_[index].outbox, {})) send(index, std::move(frame));
}

void FabricAgents::event(const std::string& host, const wire::Event& event) {
  if (event.port.is_zero()) return;  // about a path
  const std::size_t port = by_id_.at(event.port);
  const std::size_t index = plan_.ports[port].resident;
  const Resident& resident = residents_[index];
  const bool is_target =
      resident.target == host && resident.step != Step::idle && resident.step != Step::draining;
  world_.trace("{}: {} {}/{} epoch {} {}", host, wire::to_text(event.kind),
               plan_.residents[index].name, plan_.ports[port].index, event.epoch, event.host);
  switch (event.kind) {
    case wire::EventKind::prepared:
      if (is_target && event.epoch == resident.highest) prepared(index, event.port);
      return;
    case wire::EventKind::peer_moved:
      if (resident.host == host) ports_[port].known = {event.host, event.epoch};
      if (is_target) ports_[port].known_at_target = {event.host, event.epoch};
      return;
    case wire::EventKind::peer_unknown:
      return look_up(host, port);
    case wire::EventKind::overflow:
    case wire::EventKind::superseded:
      return fail_(fmt::format("{} at {}: {}", plan_.residents[index].name, host,
                               wire::to_text(event.kind)));
    default:
      return;
  }
}

// Who has it says so.
void FabricAgents::look_up(const std::string& host, std::size_t port) {
  if (!ports_[port].peer) return;
  const std::size_t peer = plan_.ports[*ports_[port].peer].resident;
  const std::string& owner = residents_[peer].host;
  const auto answer = [this, host, port, peer, owner, wire = ports_[port].wire] {
    if (residents_[peer].host != owner) return;
    const auto found_it = [this, host, port, wire, at = Location{owner, residents_[peer].epoch}] {
      if (ports_[port].wire == wire) found(host, port, at);
    };
    owner == host ? found_it() : world_.send(owner, host, found_it);
  };
  owner == host ? answer() : world_.send(host, owner, answer);
}

void FabricAgents::found(const std::string& host, std::size_t port, const Location& peer) {
  Location& known = ports_[port].known;
  if (residents_[plan_.ports[port].resident].host != host || peer.epoch < known.epoch) return;
  known = peer;
  at(host, [&](Engines& engine) { engine.connect(wire_of(port, known), world_.now()); });
}

// ---- sessions ----

void FabricAgents::tell(const std::string& from, const std::string& to,
                        std::function<bool()> take) {
  tell(std::make_shared<Telling>(Telling{.from = from, .to = to, .take = std::move(take)}));
}

void FabricAgents::tell(const std::shared_ptr<Telling>& telling) {
  if (telling->is_done) return;
  world_.send(telling->from, telling->to, [telling] {
    if (!telling->is_done) telling->is_done = telling->take();
  });
  world_.after(kTellAgain, [this, telling] { tell(telling); });
}

void FabricAgents::after(Nanoseconds delay, std::size_t resident,
                         void (FabricAgents::*step)(std::size_t)) {
  world_.after(delay, [this, resident, step, attempt = residents_[resident].attempt] {
    if (residents_[resident].attempt == attempt) (this->*step)(resident);
  });
}

// ---- trouble ----

// The agent dies; guests outlive it. It comes back with its records. Moves of which either agent
// has forgotten its part are off, unless they were committed.
void FabricAgents::restart(const std::string& host) {
  if (!engine(host)) return;
  ++restarts;
  world_.trace("the agent of {} dies", host);
  world_.stop_agent(host);
  for (Resident& each : residents_) {
    if (each.step == Step::idle || each.step == Step::draining) continue;
    if (each.host != host && each.target != host) continue;
    each.step = Step::broken;
    ++each.attempt;
  }
  world_.after(dice_.between(milliseconds(1), milliseconds(500)), [this, host] {
    world_.start_agent(host);
    world_.trace("the agent of {} is back", host);
    for (std::size_t i = 0; i < residents_.size(); ++i) {
      if (residents_[i].host == host) install(i), expect_one(i);
      const bool is_its = residents_[i].host == host || residents_[i].target == host;
      if (residents_[i].step == Step::broken && is_its) give_up(i);
    }
  });
}

std::optional<std::size_t> FabricAgents::connect_elsewhere(std::size_t port, std::size_t other) {
  const std::size_t left = *ports_[port].peer;
  const auto resident_of = [this](std::size_t each) { return plan_.ports[each].resident; };
  for (const std::size_t each : {port, left, other}) {
    const Resident& resident = residents_[resident_of(each)];
    if (resident.step != Step::idle || !engine(resident.host)) return std::nullopt;
  }
  world_.trace("the wire of {} goes to {}/{}", plan_.residents[resident_of(port)].name,
               plan_.residents[resident_of(other)].name, plan_.ports[other].index);
  for (const std::size_t each : {port, left}) {
    at(host_of(resident_of(each)),
       [&](Engines& engine) { engine.disconnect(ports_[each].wire, world_.now()); });
    ports_[each] = {};
  }
  WireId wire;
  for (std::byte& byte : wire.bytes) byte = static_cast<std::byte>(dice_.word());
  for (const auto& [end, peer] : {std::pair{port, other}, std::pair{other, port}}) {
    const Resident& resident = residents_[resident_of(peer)];
    ports_[end] = {.peer = peer, .wire = wire, .known = {resident.host, resident.epoch}};
  }
  for (const std::size_t each : {port, other}) {
    at(host_of(resident_of(each)),
       [&](Engines& engine) { engine.connect(wire_of(each, ports_[each].known), world_.now()); });
  }
  return left;
}

}  // namespace godwit::sim
