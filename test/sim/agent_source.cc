#include "agent_moves.hh"

namespace godwit::sim {

namespace {

constexpr Nanoseconds kMaxDowntime = milliseconds(300);  // the default of a move
constexpr Nanoseconds kTeardownDelay = milliseconds(500);

}  // namespace

// ---- the source ----

bool Agent::is_moving(const std::string& guest) const {
  return std::ranges::any_of(sources_, [&](const auto& entry) {
    const SS state = entry.second->machine.state();
    return entry.second->vm() == guest && !is_final(state) &&
           (state != SS::draining || entry.second->machine.memory_follows());
  });
}

bool Agent::has_vm(const std::string& guest) {
  const auto vm = store_->find("vm", guest);
  return vm && !(*vm)["stopped"];
}

bool Agent::migrate(const std::string& guest, const std::string& to, migrate::SourceOptions options,
                    bool postcopy) {
  bool accepted = false;
  guarded([&] {
    const auto vm = store_->find("vm", guest);
    if (!vm || (*vm)["stopped"] || (*vm)["arriving"] != "" || is_moving(guest)) return;
    const std::string port = cloud_.guest(guest).port.text();
    const auto known = store_->find("port", port);
    if (!known || to == host_ || !cloud_.world().is_connected(host_, to)) return;
    Epoch epoch = (*known)["epoch"];
    for (const auto& [id, move] : sources_) {
      if (move->vm() == guest) epoch = std::max(epoch, move->epoch());
    }
    SourceMove& move = make_source({{"id", fmt::format("{:016x}", cloud_.dice().word())},
                                    {"vm", guest},
                                    {"to", to},
                                    {"state", "planned"},
                                    {"abort_told", true},
                                    {"memory_follows", false},
                                    {"postcopy", postcopy},
                                    {"hold", options.hold},
                                    {"epoch", epoch + 1},
                                    {"port", port},
                                    {"process", (*vm)["process"]}});
    move.queue.feed(SE::asked, {});
    if (move.machine.state() != SS::planned) {
      sources_.erase(move.id());
      return;
    }
    accepted = true;
    after({}, [&move] { move.queue.feed(SE::begin, {}); });
  });
  return accepted;
}

void Agent::cutover(const std::string& guest) {
  guarded([&] {
    if (SourceMove* move = source_of(guest)) move->queue.feed(SE::cutover, {});
  });
}

void Agent::abort(const std::string& guest) {
  guarded([&] {
    if (SourceMove* move = source_of(guest)) move->queue.feed(SE::abort_requested, "on request");
    if (TargetMove* move = target_of(guest)) move->queue.feed(TE::give_up, "on request");
  });
}

void Agent::resolve_target_destroyed(const std::string& guest) {
  guarded([&] {
    if (SourceMove* move = source_of(guest)) move->queue.feed(SE::target_destroyed, {});
  });
}

void Agent::resolve_source_destroyed(const std::string& guest) {
  guarded([&] {
    TargetMove* move = target_of(guest);
    if (!move) return;
    look_at_guest(*move);
    move->queue.feed(TE::source_destroyed, {});
  });
}

Result<> Agent::perform(SourceMove& move, SF effect) {
  switch (effect) {
    case SF::record:
    case SF::note:
      if (move.record["state"] != to_text(move.machine.state())) move.bound = 0;
      move.record["state"] = to_text(move.machine.state());
      move.record["abort_told"] = move.machine.abort_told();
      move.record["memory_follows"] = move.machine.memory_follows();
      if (effect == SF::record) {
        if (auto done = store_->record("migration-source", move.id(), move.record); !done) {
          return done;
        }
      } else {
        store_->put("migration-source", move.id(), move.record);
      }
      if (move.machine.state() == SS::aborted) ++cloud_.aborts;
      if (move.machine.state() == SS::committed) ++cloud_.moves;
      break;
    case SF::prepare_target: {
      const auto port = store_->find("port", move.port().text());
      const auto wire = store_->find("wire", move.port().text());
      at_engine([&](Engines& engine, Instant now) {
        engine.offer_move(move.port(), move.to(), move.epoch(), now);
      });
      ask(move.to(), "migration.prepare",
          {{"id", move.id()},
           {"vm", move.vm()},
           {"epoch", move.epoch()},
           {"port", port ? *port : Json()},
           {"wire", wire ? *wire : Json()}},
          migrate::kPrepareTimeout, [&move](const Reply& reply) {
            if (reply.kind == Reply::Kind::ok) return move.queue.feed(SE::target_prepared, {});
            move.queue.feed(SE::target_failed, reply.text);
          });
      break;
    }
    case SF::start_memory:
      move.stage = SourceMove::Stage::bulk;
      move.left = cloud_.dice().between(milliseconds(50), milliseconds(800));
      move.dialled = cloud_.world().now();
      pump(move);
      break;
    case SF::continue_memory:
      move.continued = true;
      break;
    case SF::pre_pause:
      after(moment(milliseconds(50)), [this, &move] {
        if (cloud_.dice().happens(0.05)) return move.queue.feed(SE::pre_pause_failed, "a hook");
        move.queue.feed(SE::pre_pause_done, {});
      });
      break;
    case SF::post_resume:
      break;
    case SF::allow_switchover:
      after(moment(milliseconds(4)), [this, &move] { allow_switchover(move); });
      break;
    case SF::pause_ports:
      after(moment(milliseconds(3)), [this, &move] {
        at_engine([&](Engines& engine, Instant now) { engine.pause(move.port(), {}, now); });
        move.queue.feed(SE::ports_paused, {});
      });
      break;
    case SF::continue_switchover:
      if (move.stage != SourceMove::Stage::stands) break;
      move.stage = SourceMove::Stage::device;
      move.left = cloud_.dice().between(milliseconds(2), milliseconds(40));
      if (!move.postcopy()) break;
      after(moment(milliseconds(3)), [&move] { move.queue.feed(SE::memory_follows, {}); });
      break;
    case SF::commit_target:
      commit_target(move);
      break;
    case SF::cancel_memory:
      break;
    case SF::resume_guest:
      resume_guest(move);
      break;
    case SF::resume_ports:
      at_engine([&](Engines& engine, Instant now) { engine.resume(move.port(), now); });
      break;
    case SF::abort_target:
      ask(move.to(), "migration.abort", {{"id", move.id()}}, migrate::kAbortTimeout,
          [this, &move](const Reply& reply) {
            if (reply.kind != Reply::Kind::error) return move.queue.feed(SE::abort_heard, {});
            if (!cloud_.world().is_connected(host_, move.to())) return;
            arm(move.again, migrate::kTellAgain, [&move] { move.queue.feed(SE::session_up, {}); });
          });
      break;
    case SF::release_ports:
      release_ports(move);
      break;
    case SF::end_guest:
      after(kTeardownDelay, [this, &move] {
        cloud_.kill(move.process());
        move.queue.feed(SE::guest_ended, {});
      });
      break;
    case SF::recover_memory:
      recover_memory(move);
      break;
    case SF::tell_lost:
      tell_lost(move);
      break;
    case SF::forget_guest:
      move.stage = SourceMove::Stage::none;
      forget_guest(move);
      break;
    case SF::wait:
      arm(move.bound, migrate::bound_of(move.machine.state(), kMaxDowntime),
          [&move] { move.queue.feed(SE::patience_ended, {}); });
      break;
  }
  return {};
}

void Agent::commit_target(SourceMove& move) {
  ask(move.to(), "migration.commit", {{"id", move.id()}}, migrate::kCommitTimeout,
      [&move](const Reply& reply) {
        if (reply.kind == Reply::Kind::owns) move.queue.feed(SE::target_owns, {});
        if (reply.kind == Reply::Kind::refuses) move.queue.feed(SE::target_refuses, reply.text);
      });
}

// QMP's `cont` may be on its way when the agent dies.
void Agent::resume_guest(SourceMove& move) {
  move.stage = SourceMove::Stage::over;
  if (!cloud_.process(move.process())) return move.queue.feed(SE::guest_died, {});
  after(moment(milliseconds(6)), [this, &move] {
    if (move.machine.state() != SS::aborting && move.machine.state() != SS::aborted) return;
    cloud_.world().after(moment(milliseconds(2)),
                         [&cloud = cloud_, process = move.process()] { cloud.resume(process); });
    arm(move.retry, milliseconds(3), [this, &move] {
      if (cloud_.process(move.process())) move.queue.feed(SE::guest_resumed, {});
    });
  });
}

void Agent::recover_memory(SourceMove& move) {
  if (!cloud_.process(move.process())) return move.queue.feed(SE::guest_died, {});
  move.stage = SourceMove::Stage::follows;
  move.left = cloud_.dice().between(milliseconds(100), seconds(3));
  move.continued = move.lane_was_up = true;
  pump(move);
}

void Agent::tell_lost(SourceMove& move) {
  ask(move.to(), "migration.lost", {{"id", move.id()}}, migrate::kNotifyTimeout,
      [this, &move](const Reply& reply) {
        if (reply.kind != Reply::Kind::error) return;
        arm(move.again, migrate::kTellAgain, [this, &move] { tell_lost(move); });
      });
}

void Agent::release_ports(SourceMove& move) {
  const std::string port = move.port().text();
  const auto known = store_->find("port", port);
  if (!known || (*known)["epoch"] >= move.epoch()) {
    return after({}, [&move] { move.queue.feed(SE::drained, {}); });
  }
  leaving_[port] = [&move] { move.queue.feed(SE::drained, {}); };
  at_engine([&](Engines& engine, Instant now) {
    engine.release(move.port(), now);
    engine.drop_live({move.port(), (*known)["epoch"]}, now);
  });
  store_->erase("wire", port);
  store_->erase("port", port);
}

// After a restart this may be said again, when the vm has long come back.
void Agent::forget_guest(const SourceMove& move) {
  const auto vm = store_->find("vm", move.vm());
  if (vm && (*vm)["process"] == move.process()) store_->erase("vm", move.vm());
}

}  // namespace godwit::sim
