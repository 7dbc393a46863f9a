#include "agent_moves.hh"

namespace godwit::sim {

// ---- the target ----

bool Agent::takes_stream(const std::string& migration) const {
  const auto found = targets_.find(migration);
  return is_alive() && found != targets_.end() && found->second->has_link;
}

std::optional<std::uint64_t> Agent::arriving(const TargetMove& move) {
  const auto vm = store_->find("vm", move.vm());
  if (!vm || (*vm)["arriving"] != move.id()) return std::nullopt;
  const std::uint64_t process = (*vm)["process"];
  if (!cloud_.process(process)) return std::nullopt;
  return process;
}

// Before a word that makes us the owner.
void Agent::look_at_guest(TargetMove& move) {
  const TS state = move.machine.state();
  if (!arriving(move) && state != TS::owner && !is_final(state)) {
    move.queue.feed(TE::guest_died, {});
  }
}

void Agent::restart(TargetMove& move) {
  const TS state = move.machine.state();
  if (arriving(move)) {
    const bool known = store_->find("port", move.port().text()).has_value();
    if ((state == TS::loaded || state == TS::owner) && !known) hold_port(move);
  } else {
    look_at_guest(move);
  }
  move.queue.feed(TE::restarted, {});
}

Result<> Agent::perform(TargetMove& move, TF effect) {
  switch (effect) {
    case TF::record:
    case TF::note:
      move.record["state"] = to_text(move.machine.state());
      move.record["refusal_told"] = move.machine.refusal_told();
      if (effect == TF::record) {
        auto done = store_->record("migration-target", move.id(), move.record);
        if (done && move.machine.state() == TS::owner && !arriving(move)) return fail("QEMU ended");
        return done;
      }
      store_->put("migration-target", move.id(), move.record);
      break;
    case TF::prepare_guest:
      prepare_guest(move);
      break;
    case TF::reply_prepared:
      if (move.preparing) std::exchange(move.preparing, {})({});
      break;
    case TF::run_guest:
      run_guest(move);
      break;
    case TF::run_ports:
      run_ports(move);
      break;
    case TF::post_resume:
      break;
    case TF::reply_owns:
      reply(move, {.kind = Reply::Kind::owns});
      break;
    case TF::reply_refuses:
      reply(move, {.kind = Reply::Kind::refuses, .text = move.machine.reason()});
      break;
    case TF::discard_guest:
      discard_guest(move);
      break;
    case TF::notify_failed:
      ask(move.from(), "migration.failed", {{"id", move.id()}}, migrate::kNotifyTimeout,
          [this, &move](const Reply& reply) {
            if (reply.kind != Reply::Kind::error) return move.queue.feed(TE::failure_heard, {});
            if (!cloud_.world().is_connected(host_, move.from())) return;
            arm(move.again, migrate::kTellAgain, [&move] { move.queue.feed(TE::session_up, {}); });
          });
      break;
    case TF::take_commit:
      look_at_guest(move);
      move.queue.feed(TE::commit, {});
      break;
    case TF::wait:
      arm(move.bound, migrate::kLoadedBound, [&move] { move.queue.feed(TE::patience_ended, {}); });
      break;
  }
  return {};
}

void Agent::reply(TargetMove& move, const Reply& reply) {
  for (const Answer& answer : std::exchange(move.waiting, {})) answer(reply);
}

bool Agent::hold_port(TargetMove& move) {
  const std::string port = move.port().text();
  if (store_->find("port", port) || arriving_ports_.contains(port)) {
    move.queue.feed(TE::load_failed, "the port is here already");
    return false;
  }
  Json record = move.record["port"];
  record["epoch"] = move.epoch();
  arriving_ports_[port] = record;
  std::vector<wire::WireConfig> wires;
  if (!move.record["wire"].is_null()) {
    arriving_wires_[port] = move.record["wire"];
    wires.push_back(wire_of(move.record["wire"]));
  }
  move.holding = true;
  at_engine([&](Engines& engine, Instant now) {
    engine.prepare({move.port(), move.epoch(), "default"}, move.from(), wires, now);
  });
  arm(move.ports, migrate::kPortsBound, [&move] {
    if (!move.ports_held) move.queue.feed(TE::load_failed, "no UDP path");
  });
  return true;
}

void Agent::prepare_guest(TargetMove& move) {
  if (!hold_port(move)) return;
  if (store_->find("vm", move.vm())) {
    return move.queue.feed(TE::load_failed, "a vm of its own has the name");
  }
  const std::uint64_t process = cloud_.spawn({.host = host_, .guest = move.vm(), .incoming = true});
  const auto recorded = store_->record(
      "vm", move.vm(), {{"process", process}, {"arriving", move.id()}, {"stopped", false}});
  if (!recorded) {
    cloud_.kill(process);
    return move.queue.feed(TE::load_failed, recorded.error().text);
  }
  move.has_link = true;
  after(cloud_.dice().between(milliseconds(20), milliseconds(200)), [&move] {
    move.listening = true;
    if (move.ports_held) move.queue.feed(TE::prepared, {});
  });
}

void Agent::process_loaded(std::uint64_t number, const std::string& migration) {
  TargetMove* move = target(migration);
  if (!move || !cloud_.process(number)) return;
  move->loaded = true;
  maybe_loaded(*move);
}

void Agent::stream_verified(const std::string& migration) {
  guarded([&] {
    TargetMove* move = target(migration);
    if (!move || !move->has_link) return;
    move->verified = true;
    maybe_loaded(*move);
  });
}

void Agent::maybe_loaded(TargetMove& move) {
  if (!move.loaded || !move.verified) return;
  look_at_guest(move);
  move.queue.feed(TE::loaded, {});
}

void Agent::run_guest(TargetMove& move) {
  const auto process = arriving(move);
  if (!process) return reply(move, {.kind = Reply::Kind::owns});  // ran already, or ours to lose
  cloud_.world().after(moment(milliseconds(5)),
                       [&cloud = cloud_, number = *process] { cloud.resume(number); });
  after(milliseconds(6), [this, &move] {
    move.queue.feed(TE::guest_running, {});
    auto vm = store_->find("vm", move.vm());
    if (!vm || (*vm)["arriving"] != move.id()) return;
    (*vm)["arriving"] = "";
    store_->put("vm", move.vm(), *vm);
  });
}

void Agent::discard_guest(TargetMove& move) {
  move.has_link = false;
  if (move.preparing) {
    std::exchange(move.preparing, {})({.kind = Reply::Kind::error, .text = move.machine.reason()});
  }
  const auto vm = store_->find("vm", move.vm());
  if (vm && (*vm)["arriving"] == move.id()) {
    cloud_.kill((*vm)["process"]);
    store_->erase("vm", move.vm());
  }
  if (!std::exchange(move.holding, false)) return;
  const std::string port = move.port().text();
  if (arriving_ports_.erase(port) == 0) return;
  arriving_wires_.erase(port);
  held_ready_.erase(port);
  at_engine([&](Engines& engine, Instant now) { engine.discard(move.port(), now); });
}

}  // namespace godwit::sim
