// How an agent moves a guest or a component to another host.
#include <algorithm>

#include "fabric_agents.hh"

namespace godwit::sim {
namespace {

constexpr Nanoseconds kPreparingBound = seconds(2);
constexpr Nanoseconds kDecidingBound = seconds(3);
constexpr std::size_t kStateBytes = 2048;  // of a message: tables here are small

}  // namespace

void FabricAgents::move(std::size_t index, const std::string& target) {
  Resident& resident = residents_[index];
  if (resident.step != Step::idle || resident.host == target) return;
  if (!engine(resident.host) || !engine(target)) return;
  world_.trace("{} from {} to {}", plan_.residents[index].name, resident.host, target);
  resident.step = Step::preparing;
  resident.target = target;
  resident.prepared.clear();
  resident.told = resident.learned = 0;
  ++resident.attempt;
  ++resident.highest;
  at(resident.host, [&](Engines& engine) {
    for (const std::size_t port : plan_.residents[index].ports) {
      engine.offer_move(plan_.ports[port].id, target, resident.highest, world_.now());
    }
  });
  tell(resident.host, target, [this, index, attempt = resident.attempt] {
    return residents_[index].attempt != attempt || prepare(index);
  });
  after(kPreparingBound, index, &FabricAgents::end_preparing);
}

// ---- at the target ----

bool FabricAgents::prepare(std::size_t index) {
  Resident& resident = residents_[index];
  const PlannedResident& planned = plan_.residents[index];
  if (!planned.is_guest()) resident.arriving = planned.make(dice_.word());
  at(resident.target, [&](Engines& engine) {
    for (const std::size_t port : planned.ports) {
      std::vector<wire::WireConfig> wires;
      ports_[port].known_at_target = ports_[port].known;
      if (ports_[port].peer) wires.push_back(wire_of(port, ports_[port].known));
      engine.prepare({plan_.ports[port].id, resident.highest, "default"}, resident.host, wires,
                     world_.now());
    }
  });
  return true;
}

void FabricAgents::prepared(std::size_t index, const PortId& port) {
  Resident& resident = residents_[index];
  resident.prepared.insert(port);
  if (resident.step != Step::preparing) return;
  if (resident.prepared.size() < plan_.residents[index].ports.size()) return;
  resident.step = Step::copying;
  tell(resident.target, resident.host, [this, index, attempt = resident.attempt] {
    if (residents_[index].attempt == attempt) copy(index);
    return true;
  });
}

bool FabricAgents::learn(std::size_t index, std::uint64_t number, BytesView message) {
  Resident& resident = residents_[index];
  if (number <= resident.learned) return true;
  if (number != resident.learned + 1) return false;
  ++resident.learned;
  const auto done = resident.arriving->load_state(message, world_.now());
  if (!done) fail_(fmt::format("{}: {}", plan_.residents[index].name, done.error().text));
  return true;
}

// All ports in one turn, as what one held sends goes to another.
bool FabricAgents::commit(std::size_t index) {
  Resident& resident = residents_[index];
  const PlannedResident& planned = plan_.residents[index];
  if (resident.learned != resident.told) return false;
  ++moves;
  world_.trace("{} runs at {}", planned.name, resident.target);
  const std::string from = std::exchange(resident.host, resident.target);
  resident.epoch = resident.highest;
  resident.step = Step::draining;
  ++resident.attempt;
  resident.runs = true;
  for (const std::size_t port : planned.ports) ports_[port].known = ports_[port].known_at_target;
  at(resident.host, [&](Engines& engine) {
    if (!planned.is_guest()) {
      world_.host(resident.host)
          .components()
          ->place(planned.component, std::move(resident.arriving), ports_of(index), world_.now());
    }
    for (const std::size_t port : planned.ports) engine.run(plan_.ports[port].id, world_.now());
  });
  send_rest(index);
  tell(resident.host, from, [this, index, from] { return release(index, from), true; });
  return true;
}

void FabricAgents::discard(std::size_t index, const std::string& target, Epoch burned) {
  at(target, [&](Engines& engine) {
    for (const std::size_t port : plan_.residents[index].ports) {
      const PortId& id = plan_.ports[port].id;
      const auto stats = engine.port_stats(id);
      if (stats && stats->id.epoch == burned) engine.discard(id, world_.now());
    }
  });
}

// ---- at the source ----

void FabricAgents::copy(std::size_t index) {
  Resident& resident = residents_[index];
  const PlannedResident& planned = plan_.residents[index];
  if (planned.is_guest()) {
    return after(dice_.between(Nanoseconds{}, milliseconds(30)), index, &FabricAgents::pause);
  }
  world_.host(resident.host).components()->find(planned.component)->begin_state();
  tell_some(index);
}

// A few rounds at least, so that something changes between them.
void FabricAgents::tell_some(std::size_t index) {
  const Resident& resident = residents_[index];
  net::Component* component =
      world_.host(resident.host).components()->find(plan_.residents[index].component);
  Bytes some = component->take_state(kStateBytes, world_.now());
  if (!some.empty()) tell_state(index, std::move(some));
  const Nanoseconds delay = dice_.between(milliseconds(1), milliseconds(40));
  after(delay, index, dice_.happens(0.3) ? &FabricAgents::pause : &FabricAgents::tell_some);
}

void FabricAgents::tell_state(std::size_t index, Bytes message) {
  Resident& resident = residents_[index];
  tell(resident.host, resident.target,
       [this, index, attempt = resident.attempt, number = ++resident.told,
        message = std::move(message)] {
         return residents_[index].attempt != attempt || learn(index, number, message);
       });
}

// First no frame comes any more, then the rest is told.
void FabricAgents::pause(std::size_t index) {
  Resident& resident = residents_[index];
  const PlannedResident& planned = plan_.residents[index];
  world_.trace("{} stands at {}", planned.name, resident.host);
  resident.step = Step::deciding;
  resident.runs = false;
  at(resident.host, [&](Engines& engine) {
    for (const std::size_t port : planned.ports) {
      engine.pause(plan_.ports[port].id, {}, world_.now());
    }
  });
  if (!planned.is_guest()) {
    net::Component* component = world_.host(resident.host).components()->find(planned.component);
    for (Bytes rest = component->take_state(kStateBytes, world_.now()); !rest.empty();
         rest = component->take_state(kStateBytes, world_.now())) {
      tell_state(index, std::move(rest));
    }
  }
  // What the rest takes to be told and written: of a component little.
  const Nanoseconds most = planned.is_guest() ? milliseconds(200) : milliseconds(60);
  const Nanoseconds state = dice_.between(Nanoseconds{}, most);
  world_.after(state, [this, index, attempt = resident.attempt] {
    if (residents_[index].attempt != attempt) return;
    tell(residents_[index].host, residents_[index].target,
         [this, index, attempt] { return residents_[index].attempt != attempt || commit(index); });
  });
  after(kDecidingBound, index, &FabricAgents::give_up);
}

void FabricAgents::release(std::size_t index, const std::string& from) {
  at(from, [&](Engines& engine) {
    for (const std::size_t port : plan_.residents[index].ports) {
      engine.release(plan_.ports[port].id, world_.now());
    }
    world_.host(from).components()->remove(plan_.residents[index].component);
  });
  residents_[index].step = Step::idle;
}

void FabricAgents::end_preparing(std::size_t index) {
  if (residents_[index].step != Step::preparing) return;
  if (is_fine_) {
    fail_(fmt::format("{} was not prepared in time", plan_.residents[index].name));
  }
  give_up(index);
}

void FabricAgents::abort(std::size_t index) {
  const Step step = residents_[index].step;
  if (step == Step::preparing || step == Step::copying || step == Step::deciding) give_up(index);
}

// Before the commit: the source goes on, the target lets go when it hears of it.
void FabricAgents::give_up(std::size_t index) {
  Resident& resident = residents_[index];
  const PlannedResident& planned = plan_.residents[index];
  ++aborts;
  world_.trace("{} goes on at {}", planned.name, resident.host);
  resident.step = Step::idle;
  resident.runs = true;
  ++resident.attempt;
  resident.arriving.reset();
  at(resident.host, [&](Engines& engine) {
    if (!planned.is_guest()) {
      world_.host(resident.host).components()->find(planned.component)->end_state();
    }
    for (const std::size_t port : planned.ports) engine.resume(plan_.ports[port].id, world_.now());
  });
  send_rest(index);
  tell(resident.host, resident.target,
       [this, index, target = resident.target, burned = resident.highest] {
         return discard(index, target, burned), true;
       });
}

}  // namespace godwit::sim
