#include "agent_moves.hh"

namespace godwit::sim {

// ---- its life ----

Agent::Agent(Cloud& cloud, std::string host)
    : cloud_(cloud), host_(std::move(host)), store_(store::open_on(cloud.disk_of(host_))) {}

void Agent::start() {
  guarded([this] {
    open_ports();
    for (const auto& document : store_->list("vm")) {
      if (cloud_.process(document.body["process"])) continue;
      Json stopped = document.body;
      stopped["stopped"] = true;
      store_->put("vm", document.key, stopped);
    }
    for (const auto& document : store_->list("migration-source")) {
      SourceMove& move = make_source(document.body);
      if (!move.machine.over()) move.queue.feed(SE::restarted, {});
    }
    for (const auto& document : store_->list("migration-target")) {
      restart(make_target(document.body));
    }
  });
}

void Agent::guarded(const std::function<void()>& work) {
  if (!is_alive()) return;
  try {
    work();
  } catch (const Killed&) {
    cloud_.kill_agent(host_);
  }
}

void Agent::after(Nanoseconds delay, std::function<void()> work) {
  cloud_.world().after(delay, [this, work = std::move(work)] { guarded(work); });
}

void Agent::arm(Timer& timer, Nanoseconds delay, std::function<void()> work) {
  timer = ++last_timer_;
  after(delay, [&timer, armed = timer, work = std::move(work)] {
    if (timer == armed) work();
  });
}

Nanoseconds Agent::moment(Nanoseconds most) {
  return cloud_.dice().between(std::chrono::microseconds(100), most);
}

// Exactly one answer; an error when there is none in time.
void Agent::ask(const std::string& peer, const std::string& method, Json body, Nanoseconds timeout,
                Answer answer) {
  auto open = std::make_shared<bool>(true);
  const auto answered = [open, answer = std::move(answer)](const Reply& reply) {
    if (std::exchange(*open, false)) answer(reply);
  };
  after(timeout, [answered] { answered({.kind = Reply::Kind::error, .text = "no answer"}); });
  World& world = cloud_.world();
  if (!world.is_connected(host_, peer)) {
    return after({}, [answered] { answered({.kind = Reply::Kind::error, .text = "no session"}); });
  }
  world.send(host_, peer, [this, peer, method, body = std::move(body), answered] {
    Agent* other = cloud_.agent(peer);
    if (!other) return;
    other->request(host_, method, body, [this, peer, answered](const Reply& reply) {
      cloud_.world().send(peer, host_,
                          [this, answered, reply] { guarded([&] { answered(reply); }); });
    });
  });
}

// ---- moves, both sides ----

Agent::SourceMove& Agent::make_source(const Json& record) {
  const std::string id = record["id"];
  auto& slot = sources_[id];
  const auto point = [this, id](SF effect, Moment moment) {
    cloud_.on_point(host_,
                    {"source", to_text(sources_.at(id)->machine.state()), to_text(effect), moment});
  };
  slot = std::make_shared<SourceMove>(
      record, migrate::EventQueue<Source>::Handlers{
                  .perform = [this, id](SF effect) { return perform(*sources_.at(id), effect); },
                  .reached = point,
                  .took =
                      [this, id](SE event, SS before) {
                        cloud_.world().trace("{}: {} in {} -> {}", host_, to_text(event),
                                             to_text(before),
                                             to_text(sources_.at(id)->machine.state()));
                      }});
  return *slot;
}

Agent::TargetMove& Agent::make_target(const Json& record) {
  const std::string id = record["id"];
  auto& slot = targets_[id];
  const auto point = [this, id](TF effect, Moment moment) {
    cloud_.on_point(host_,
                    {"target", to_text(targets_.at(id)->machine.state()), to_text(effect), moment});
  };
  slot = std::make_shared<TargetMove>(
      record, migrate::EventQueue<Target>::Handlers{
                  .perform = [this, id](TF effect) { return perform(*targets_.at(id), effect); },
                  .reached = point,
                  .took =
                      [this, id](TE event, TS before) {
                        cloud_.world().trace("{}: {} in {} -> {}", host_, to_text(event),
                                             to_text(before),
                                             to_text(targets_.at(id)->machine.state()));
                      }});
  return *slot;
}

Agent::SourceMove* Agent::source(const std::string& id) {
  const auto found = sources_.find(id);
  return found == sources_.end() ? nullptr : found->second.get();
}
Agent::TargetMove* Agent::target(const std::string& id) {
  const auto found = targets_.find(id);
  return found == targets_.end() ? nullptr : found->second.get();
}
// The last of several, which is the one that is not over.
Agent::SourceMove* Agent::source_of(const std::string& guest) const {
  SourceMove* last = nullptr;
  for (const auto& [id, move] : sources_) {
    if (move->vm() == guest && (!last || last->epoch() < move->epoch())) last = move.get();
  }
  return last;
}
Agent::TargetMove* Agent::target_of(const std::string& guest) const {
  TargetMove* last = nullptr;
  for (const auto& [id, move] : targets_) {
    if (move->vm() == guest && (!last || last->epoch() < move->epoch())) last = move.get();
  }
  return last;
}

void Agent::session_up(const std::string& peer) {
  guarded([&] {
    for (const auto& [id, move] : sources_) {
      if (move->to() == peer && !move->machine.over()) move->queue.feed(SE::session_up, {});
    }
    for (const auto& [id, move] : targets_) {
      if (move->from() == peer) move->queue.feed(TE::session_up, {});
    }
  });
}

// As agent/migrations.cc and agent/network_wires.cc answer.
void Agent::request(const std::string& from, const std::string& method, const Json& body,
                    const Answer& answer) {
  guarded([&] {
    if (method == "port.find") {
      const auto port = store_->find("port", body["id"].get<std::string>());
      return answer({.kind = Reply::Kind::ok, .body = port ? *port : Json()});
    }
    const std::string id = body["id"];
    if (method == "migration.prepare") {
      if (targets_.contains(id))
        return answer({.kind = Reply::Kind::error, .text = "begun before"});
      Json record = body;
      record.update({{"from", from}, {"state", "planned"}, {"refusal_told", true}});
      TargetMove& move = make_target(record);
      move.preparing = answer;
      return move.queue.feed(TE::begin, {});
    }
    if (method == "migration.failed") {
      if (SourceMove* move = source(id)) move->queue.feed(SE::target_failed, "it failed");
      return answer({});
    }
    TargetMove* move = target(id);
    if (!move && method == "migration.abort") return answer({});
    if (!move) return answer({.kind = Reply::Kind::error, .text = "unknown migration"});
    if (method == "migration.lost") {
      const auto vm = store_->find("vm", move->vm());
      if (vm) cloud_.kill((*vm)["process"]);
      return answer({});
    }
    move->waiting.push_back(answer);
    if (method == "migration.abort") return move->queue.feed(TE::abort, "the source aborted");
    look_at_guest(*move);
    move->queue.feed(TE::commit, {});
  });
}

void Agent::process_ended(std::uint64_t number) {
  guarded([&] {
    for (const auto& document : store_->list("vm")) {
      if (document.body["process"] != number) continue;
      Json stopped = document.body;
      stopped["stopped"] = true;
      store_->put("vm", document.key, stopped);
      if (SourceMove* move = source_of(document.key); move && move->process() == number) {
        move->queue.feed(SE::guest_died, {});
      }
      if (TargetMove* move = target_of(document.key);
          move && document.body["arriving"] == move->id()) {
        move->queue.feed(TE::guest_died, {});
      }
    }
  });
}

// ---- what it knows ----

std::optional<SS> Agent::source_state(const std::string& guest) const {
  const SourceMove* move = source_of(guest);
  return move ? std::optional(move->machine.state()) : std::nullopt;
}
std::optional<TS> Agent::target_state(const std::string& guest) const {
  const TargetMove* move = target_of(guest);
  return move ? std::optional(move->machine.state()) : std::nullopt;
}
bool Agent::undecided(const std::string& guest) const {
  const SourceMove* move = source_of(guest);
  return move && move->machine.undecided();
}
bool Agent::is_idle() const {
  return std::ranges::all_of(sources_, [](const auto& s) { return s.second->machine.over(); }) &&
         std::ranges::all_of(targets_, [](const auto& t) {
           const TS state = t.second->machine.state();
           return state == TS::owner || (is_final(state) && t.second->machine.refusal_told());
         });
}
std::string Agent::describe() const {
  std::string text;
  for (const auto& [id, move] : sources_) {
    text += fmt::format(" {} {} to {}", move->vm(), to_text(move->machine.state()), move->to());
  }
  for (const auto& [id, move] : targets_) {
    text += fmt::format(" {} {} from {}", move->vm(), to_text(move->machine.state()), move->from());
  }
  return text;
}

}  // namespace godwit::sim
