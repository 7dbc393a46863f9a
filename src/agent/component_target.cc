#include "agent/component_target.hh"

#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>

#include "agent/move_queue.hh"
#include "migrate/bounds.hh"
#include "qemu/json.hh"

namespace godwit::agent {

using migrate::TargetEffect;
using migrate::TargetEvent;
using migrate::TargetState;

namespace {

constexpr const char* kTargetKind = "component-target";

}  // namespace

nlohmann::json to_json(const ComponentTargetRecord& record) {
  return {{"id", record.id.text()},
          {"from", record.from},
          {"state", migrate::to_text(record.state)},
          {"reason", record.reason},
          {"started", record.started},
          {"by", record.by},
          {"component", to_json(record.component)},
          {"ports", record.ports},
          {"epoch", record.epoch},
          {"has_arrived", record.has_arrived},
          {"refusal_told", record.refusal_told},
          {"restarted", record.restarted}};
}

ComponentTargetRecord component_target_record(const nlohmann::json& json) {
  const auto id = id_field<MigrationId>(json, "id");
  const auto state = migrate::target_state(text_field_or(json, "state", ""));
  auto component = fabric::component_record(qemu::member(json, "component"));
  if (!id || !state || !component) {
    fail_setup("the agent's store holds a damaged migration: {}", json.dump());
  }
  return {.id = *id,
          .from = text_field_or(json, "from", ""),
          .state = *state,
          .reason = text_field_or(json, "reason", ""),
          .started = json.value("started", std::int64_t{0}),
          .by = text_field_or(json, "by", ""),
          .component = *std::move(component),
          .ports = array_field(json, "ports"),
          .epoch = epoch_field(json, "epoch", 1),
          .has_arrived = json.value("has_arrived", false),
          .refusal_told = json.value("refusal_told", true),
          .restarted = json.value("restarted", false)};
}

ComponentTarget::ComponentTarget(const SourceMove::Context& context, ComponentTargetRecord record)
    : context_(context),
      record_(std::move(record)),
      machine_(record_.state, record_.refusal_told),
      queue_(machine_, queue_handlers<migrate::Target>(
                           "component-target", record_.id, machine_,
                           [this](TargetEffect effect) { return perform(effect); })) {}

void ComponentTarget::feed(TargetEvent event, std::string text) {
  queue_.feed(event, std::move(text));
}

// ---- events ----

void ComponentTarget::prepare(PeerRequest request) {
  preparing_ = std::move(request);
  feed(TargetEvent::begin);
}

void ComponentTarget::learn(PeerRequest request, const nlohmann::json& body) {
  const std::uint64_t number = qemu::unsigned_at(body, "number");
  // Told again, as its answer did not arrive.
  if (number <= learned_) return request.answer(nlohmann::json::object());
  if (machine_.state() != TargetState::preparing || !component_) {
    return request.answer(fail("{} is not awaited here", record_.component.name));
  }
  if (number != learned_ + 1) return request.answer(fail("a message is missing"));
  learned_ = number;
  if (auto done = load(body); !done) {
    feed(TargetEvent::load_failed, done.error().text);
    return request.answer(std::unexpected(std::move(done).error()));
  }
  if (qemu::flag_at(body, "last")) feed(TargetEvent::loaded);
  request.answer(nlohmann::json::object());
}

Result<> ComponentTarget::load(const nlohmann::json& body) {
  const auto message = message_of(body);
  if (!message) return std::unexpected(message.error());
  if (message->empty()) return {};  // nothing but that it is the last
  return component_->load_state(*message, context_.loop.now());
}

// In the request, in hex, or else in the push before it.
Result<Bytes> ComponentTarget::message_of(const nlohmann::json& body) {
  if (body.contains("state")) {
    Bytes state = from_hex(text_field_or(body, "state", ""));
    if (state.size() > kMostStateBytes) return fail("a message is too long");
    return state;
  }
  if (kept_.number != learned_) return fail("message {} has not come", learned_);
  if (!unpacker_) unpacker_.emplace();
  return unpacker_->unpack(std::exchange(kept_, {}));
}

void ComponentTarget::commit(PeerRequest request) {
  if (committed_ == Instant{}) committed_ = context_.loop.now();
  waiting_.push_back(std::move(request));
  feed(TargetEvent::commit);
}

void ComponentTarget::abort(PeerRequest request, const std::string& reason) {
  waiting_.push_back(std::move(request));
  feed(TargetEvent::abort, reason);
}

Result<> ComponentTarget::give_up() {
  if (machine_.state() == TargetState::refused) return {};
  if (settled()) {
    return fail("component {} has arrived: migrate it back instead", record_.component.name);
  }
  feed(TargetEvent::give_up, "aborted on request at host " + context_.config.name);
  return {};
}

Result<> ComponentTarget::source_destroyed() {
  if (machine_.state() == TargetState::owner) return {};
  if (machine_.state() != TargetState::loaded) {
    return fail("component {} has not come whole from {}, it cannot run here: the move is {}",
                record_.component.name, record_.from, migrate::to_text(machine_.state()));
  }
  feed(TargetEvent::source_destroyed);
  if (machine_.state() == TargetState::owner) return {};
  return fail("component {} waits on: {}", record_.component.name, machine_.reason());
}

// What had come was in the memory of the agent before this one. An owner's that was not given to
// the wire thread yet begins anew: it is nowhere else.
void ComponentTarget::restart() {
  if (!settled()) record_.restarted = true;
  if (machine_.state() == TargetState::loaded) {
    return feed(TargetEvent::load_failed, "the target's agent was restarted");
  }
  if (machine_.state() == TargetState::owner) {
    if (record_.has_arrived) return;
    const auto& ports = record_.component.ports;
    const bool known = !ports.empty() && context_.network.describe_nic(ports.front().id);
    if (!known) hold_ports();
  }
  feed(TargetEvent::restarted);
}

// ---- effects ----

Result<> ComponentTarget::perform(TargetEffect effect) {
  if (effect != TargetEffect::record) return perform_surely(effect), Result<>{};
  auto done = context_.store.record(kTargetKind, record_.id.text(), journal_entry());
  if (done) recorded();
  return done;
}

void ComponentTarget::perform_surely(TargetEffect effect) {
  switch (effect) {
    case TargetEffect::record:  // see perform()
      return;
    case TargetEffect::note:
      context_.store.put(kTargetKind, record_.id.text(), journal_entry());
      return recorded();
    case TargetEffect::prepare_guest:
      return prepare_component();
    case TargetEffect::reply_prepared:
      if (preparing_) std::exchange(preparing_, {})->answer(nlohmann::json{{"prepared", true}});
      return;
    case TargetEffect::run_guest:
      return run_component();
    case TargetEffect::run_ports:
      return run_ports();
    case TargetEffect::post_resume:  // hooks are for guests
      return;
    case TargetEffect::reply_owns:
      return reply({{"owns", true},
                    {"freeze_ns", (runs_since_ - committed_).count()},
                    {"held_frames", held_.frames},
                    {"held_dropped", held_.dropped}});
    case TargetEffect::reply_refuses:
      return reply({{"refuses", machine_.reason()}});
    case TargetEffect::discard_guest:
      component_.reset();
      context_.components.expect_no_more(record_.component);
      if (preparing_) std::exchange(preparing_, {})->answer(fail("{}", machine_.reason()));
      return context_.network.discard_held(std::exchange(holding_, {}));
    case TargetEffect::notify_failed:
      return notify_failed();
    case TargetEffect::take_commit:
      return feed(TargetEvent::commit);
    case TargetEffect::wait:
      bound_ =
          context_.loop.after(migrate::kLoadedBound, [this] { feed(TargetEvent::patience_ended); });
      return;
  }
}

nlohmann::json ComponentTarget::journal_entry() {
  record_.state = machine_.state();
  record_.reason = machine_.reason();
  record_.refusal_told = machine_.refusal_told();
  return to_json(record_);
}

void ComponentTarget::recorded() {
  if (std::exchange(published_, record_.state) == record_.state) return;  // what was heard, only
  context_.events.publish("migration",
                          {{"id", record_.id.text()},
                           {"vm", std::string(kComponentPrefix) + record_.component.name},
                           {"tenant", record_.component.tenant},
                           {"by", record_.by},
                           {"from", record_.from},
                           {"target_state", migrate::to_text(record_.state)},
                           {"reason", record_.reason}});
}

bool ComponentTarget::hold_ports() {
  std::vector<PortId> ports;
  for (const auto& port : record_.component.ports) ports.push_back(port.id);
  for (const auto& described : record_.ports) {
    const auto held =
        context_.network.prepare_held(described, PortKind::component, record_.from, record_.epoch);
    if (!held) return feed(TargetEvent::load_failed, held.error().text), false;
    holding_.push_back(*held);
  }
  if (holding_ == ports) return true;
  feed(TargetEvent::load_failed, "the component's ports are not those that come with it");
  return false;
}

void ComponentTarget::prepare_component() {
  if (const auto expected = context_.components.expect(record_.component); !expected) {
    return feed(TargetEvent::load_failed, expected.error().text);
  }
  if (!hold_ports()) return;
  component_ = context_.components.make(record_.component);
  context_.network.when_prepared(holding_, migrate::kPortsBound,
                                 [this, alive = std::weak_ptr(alive_)](const Result<>& done) {
                                   if (alive.expired()) return;
                                   if (!done)
                                     return feed(TargetEvent::load_failed, done.error().text);
                                   feed(TargetEvent::prepared);
                                 });
}

// What is written of it and of its ports is written together, when they run (run_ports()): that it
// is ours is in the journal.
void ComponentTarget::run_component() {
  context_.store.begin_group();
  auto component = component_ ? std::move(component_) : context_.components.make(record_.component);
  context_.components.arrive(record_.component, std::move(component));
}

// After it: what was held goes to it.
void ComponentTarget::run_ports() {
  context_.network.run(std::exchange(holding_, {}),
                       [this, alive = std::weak_ptr(alive_)](const Network::Held& held) {
                         if (alive.expired()) return;
                         held_ = held;
                         feed(TargetEvent::guest_running);
                       });
  runs_since_ = context_.loop.now();
  record_.has_arrived = true;
  context_.store.put(kTargetKind, record_.id.text(), journal_entry());
  (void)context_.store.end_group();  // on a full disk it waits, as what is put
}

void ComponentTarget::notify_failed() {
  context_.peers.request(
      record_.from, "component.failed",
      {{"id", record_.id.text()}, {"reason", machine_.reason()}, {"restarted", record_.restarted}},
      [this, alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& done) {
        if (alive.expired()) return;
        if (done) return feed(TargetEvent::failure_heard);
        if (!context_.peers.is_up(record_.from)) return;  // the next session tells it again
        again_ = context_.loop.after(migrate::kTellAgain, [this] { on_session_up(); });
      },
      migrate::kNotifyTimeout);
}

void ComponentTarget::reply(const nlohmann::json& body) {
  for (auto& request : std::exchange(waiting_, {})) request.answer(body);
}

bool ComponentTarget::settled() const {
  return machine_.state() == TargetState::owner || migrate::is_final(machine_.state());
}

nlohmann::json ComponentTarget::describe() const {
  return {{"id", record_.id.text()},
          {"vm", std::string(kComponentPrefix) + record_.component.name},
          {"tenant", record_.component.tenant},
          {"from", record_.from},
          {"to", context_.config.name},
          {"started", record_.started},
          {"by", record_.by},
          {"state", machine_.state() == TargetState::owner     ? "done"
                    : machine_.state() == TargetState::refused ? "aborted"
                    : machine_.state() == TargetState::loaded  ? "switching"
                                                               : "copying"},
          {"reason", record_.reason}};
}

}  // namespace godwit::agent
