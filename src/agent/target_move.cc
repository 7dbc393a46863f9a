#include "agent/target_move.hh"

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "agent/move_queue.hh"
#include "agent/relocations.hh"
#include "migrate/bounds.hh"

namespace godwit::agent {

using migrate::TargetEffect;
using migrate::TargetEvent;
using migrate::TargetState;

TargetMove::TargetMove(const SourceMove::Context& context, TargetRecord record)
    : context_(context),
      record_(std::move(record)),
      machine_(record_.state, record_.refusal_told),
      queue_(machine_, queue_handlers<migrate::Target>(
                           "target", record_.id, machine_,
                           [this](TargetEffect effect) { return perform(effect); })),
      transfer_(stream::TransferId::from(record_.id.bytes)),
      cpu_at_begin_(process_cpu_seconds(::getpid())) {
  for (const auto& nic : record_.spec.nics) ports_.push_back(nic.port);
}

void TargetMove::feed(TargetEvent event, std::string text) { queue_.feed(event, std::move(text)); }

Result<> TargetMove::perform(TargetEffect effect) {
  if (effect != TargetEffect::record) return perform_surely(effect), Result<>{};
  auto done = context_.store.record("migration-target", record_.id.text(), journal_entry());
  if (done) recorded();
  // As long as it was not told to run the source has it still.
  if (done && machine_.state() == TargetState::owner && guest() == nullptr) {
    return fail("QEMU ended at the target");
  }
  return done;
}

void TargetMove::perform_surely(TargetEffect effect) {
  switch (effect) {
    case TargetEffect::record:  // see perform()
      return;
    case TargetEffect::note:
      context_.store.put("migration-target", record_.id.text(), journal_entry());
      return recorded();
    case TargetEffect::prepare_guest:
      return prepare_guest();
    case TargetEffect::reply_prepared:
      if (preparing_) std::exchange(preparing_, {})->answer(nlohmann::json{{"prepared", true}});
      return;
    case TargetEffect::run_guest:
      return run_guest();
    // After a restart: none, unless they were held anew.
    case TargetEffect::run_ports:
      return run_ports();
    case TargetEffect::post_resume:
      return post_resume();
    case TargetEffect::reply_owns:
      return reply_owns();
    case TargetEffect::reply_refuses:
      return reply({{"refuses", machine_.reason()}});
    case TargetEffect::discard_guest:
      subscription_.reset();
      incoming_.reset();
      rescue_.reset();
      disks_.reset();
      if (link_) link_->abort(machine_.reason());
      if (preparing_) std::exchange(preparing_, {})->answer(fail("{}", machine_.reason()));
      // Another vm may have the name by now, or had it before us.
      discard_guest();
      if (!keeps_disks_) context_.disks.remove_unfinished(record_.spec.id);
      context_.relocations.undo(uplinks());
      return context_.network.discard_held(std::exchange(holding_, {}));
    case TargetEffect::notify_failed:
      return notify_failed();
    case TargetEffect::take_commit:
      look_at_guest();
      return feed(TargetEvent::commit);
    case TargetEffect::wait:
      bound_ =
          context_.loop.after(migrate::kLoadedBound, [this] { feed(TargetEvent::patience_ended); });
      return;
  }
}

nlohmann::json TargetMove::journal_entry() {
  record_.state = machine_.state();
  record_.reason = machine_.reason();
  record_.refusal_told = machine_.refusal_told();
  return to_json(record_);
}

void TargetMove::recorded() {
  if (std::exchange(published_, record_.state) == record_.state) return;  // what was heard, only
  context_.events.publish("migration", {{"id", record_.id.text()},
                                        {"vm", record_.spec.name},
                                        {"tenant", record_.spec.tenant},
                                        {"by", record_.by},
                                        {"from", record_.from},
                                        {"target_state", migrate::to_text(record_.state)},
                                        {"reason", record_.reason}});
}

void TargetMove::prepare(PeerRequest request, const std::optional<codec::Settings>& codec,
                         std::shared_ptr<SharedReader> group, bool wants_elsewhere) {
  codec_ = codec;
  wants_elsewhere_ = wants_elsewhere;
  group_ = std::move(group);
  preparing_ = std::move(request);
  feed(TargetEvent::begin);
}

// The waiting guest that this move brought; not a vm that has run here, whatever its name.
Vm* TargetMove::guest() {
  if (!context_.vms.is_arriving(record_.spec.name, record_.id)) return nullptr;
  return context_.vms.find(record_.spec.name);
}

// What came of its memory, and of its disks, need not come again; what is missing in post-copy
// could not be read. Our end of QEMU's stream stays open meanwhile, as QEMU ends when it closes.
void TargetMove::discard_guest() {
  Vm* vm = guest();
  if (vm == nullptr || !link_ || in_postcopy_) {
    if (context_.vms.is_arriving(record_.spec.name, record_.id)) {
      return context_.vms.forget(record_.spec.name);
    }
    return context_.disks.break_off(record_.spec.id);
  }
  const os::ProcessIdentity process = vm->process().identity();
  context_.vms.forget(record_.spec.name, Vms::Teardown::by_caller);
  context_.known.keep(record_.spec.id, record_.spec.memory, process, Nanoseconds(0),
                      [this, process, alive = std::weak_ptr(alive_)] {
                        kill_qemu(process);
                        if (!alive.expired()) link_.reset();
                      });
}

void TargetMove::follow(Vm& vm) {
  subscription_ = vm.subscribe({.event =
                                    [this](const qemu::QmpEvent& event) {
                                      if (event.name == "RESUME" && cont_at_ != Instant{})
                                        guest_runs(event.happened);
                                      if (incoming_) incoming_->event(event);
                                    },
                                .died =
                                    [this](const std::string& reason) {
                                      if (record_.memory_follows) memory_complete();
                                      feed(TargetEvent::guest_died, reason);
                                    }});
}

// The source closes its lanes when all is over. The link is calling us: it goes afterwards.
void TargetMove::end_link() {
  if (link_->has_lane()) return;
  context_.loop.post([this, alive = std::weak_ptr(alive_)] {
    if (alive.expired()) return;
    disks_.reset();
    link_.reset();
  });
}

void TargetMove::maybe_loaded() {
  if (!guest_loaded_ || !stream_verified_) return;
  look_at_guest();
  feed(TargetEvent::loaded);
}

// Before a word that makes us the owner: QEMU's death may be known to the kernel and not yet to us.
void TargetMove::look_at_guest() {
  if (guest() == nullptr && machine_.state() != TargetState::owner &&
      !migrate::is_final(machine_.state())) {
    feed(TargetEvent::guest_died);
  }
}

void TargetMove::use_lane(stream::LaneNumber number, std::unique_ptr<os::ByteStream> lane,
                          BytesView early) {
  if (link_) link_->use_lane(number, std::move(lane), early);
}

void TargetMove::commit(PeerRequest request, std::optional<Nanoseconds> behind) {
  if (behind) clock_stood_since_ = context_.loop.now() - *behind;
  waiting_.push_back(std::move(request));
  look_at_guest();
  feed(TargetEvent::commit);
}

void TargetMove::abort(PeerRequest request, const std::string& reason, bool given_up) {
  if (given_up) keeps_disks_ = false;
  // The transfer's own word may have been here first.
  if (given_up && machine_.state() == TargetState::refused) {
    context_.disks.remove_unfinished(record_.spec.id);
  }
  waiting_.push_back(std::move(request));
  feed(TargetEvent::abort, reason);
}

Result<> TargetMove::give_up() {
  if (machine_.state() == TargetState::refused) return {};
  if (settled()) return fail("vm {} has arrived: migrate it back instead", record_.spec.name);
  keeps_disks_ = false;
  feed(TargetEvent::give_up, "aborted on request at host " + context_.config.name);
  return {};
}

Result<> TargetMove::source_destroyed() {
  if (machine_.state() == TargetState::owner) return {};
  look_at_guest();
  if (machine_.state() != TargetState::loaded) {
    return fail("vm {} has not come whole from {}, it cannot run here: the move is {}",
                record_.spec.name, record_.from, migrate::to_text(machine_.state()));
  }
  feed(TargetEvent::source_destroyed);
  if (machine_.state() == TargetState::owner) return {};
  return fail("vm {} waits on: {}", record_.spec.name, machine_.reason());
}

void TargetMove::restart() {
  if (machine_.state() == TargetState::owner) follow_network();
  const bool runs = machine_.state() == TargetState::owner &&
                    !context_.vms.is_arriving(record_.spec.name, record_.id);
  if (Vm* here = context_.vms.find(record_.spec.name); runs && here != nullptr) flip(*here);
  // The guest runs, or is gone: all that this move had to do was done by an earlier agent.
  const bool is_arriving = context_.vms.is_arriving(record_.spec.name, record_.id);
  Vm* vm = is_arriving ? guest() : context_.vms.find(record_.spec.name);
  if (settled() && !is_arriving && !record_.memory_follows) return;
  if (vm != nullptr) {
    follow(*vm);
    if (record_.memory_follows) watch_rest(*vm);
  } else {
    record_.memory_follows = false;
    look_at_guest();
  }
  if (settled() && !is_arriving) return;
  // The ports' records are rebuilt from ours: held if the guest may still come to run here, or was
  // about to. One that died then leaves them to its operator, as every stopped vm does.
  const bool may_run =
      machine_.state() == TargetState::loaded || machine_.state() == TargetState::owner;
  const bool known = !ports_.empty() && context_.network.describe_nic(ports_.front()).has_value();
  if (may_run && !known) hold_ports();
  record_.restarted = !may_run;
  feed(TargetEvent::restarted);
}

void TargetMove::run_ports() {
  counting_ = true;
  context_.store.begin_group();
  context_.network.run(std::exchange(holding_, {}),
                       [this, alive = std::weak_ptr(alive_)](const Network::Held& held) {
                         if (alive.expired()) return;
                         counting_ = false;
                         held_.frames += held.frames;
                         held_.dropped += held.dropped;
                         if (std::exchange(owes_reply_, false)) reply_owns();
                       });
  (void)context_.store.end_group();  // on a full disk it waits
  follow_network();
}

void TargetMove::reply_owns() {
  owes_reply_ = counting_;  // the wire thread is about to say; the guest runs meanwhile
  if (owes_reply_) return;
  double cpu = process_cpu_seconds(::getpid()) - cpu_at_begin_;
  if (Vm* vm = context_.vms.find(record_.spec.name)) cpu += vm->cpu_seconds();
  reply({{"owns", true},
         {"clock", record_.clock},
         {"resume_ns", resume_took_.count()},
         {"runs_ns", runs_ ? (context_.loop.now() - cont_at_ - resume_took_).count() : 0},
         {"cpu_s", cpu},
         {"held_frames", held_.frames},
         {"held_dropped", held_.dropped}});
}

void TargetMove::reply(const nlohmann::json& body) {
  for (auto& request : std::exchange(waiting_, {})) request.answer(body);
}

void TargetMove::notify_failed() {
  context_.peers.request(
      record_.from, "migration.failed",
      {{"id", record_.id.text()}, {"reason", machine_.reason()}, {"restarted", record_.restarted}},
      [this, alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& done) {
        if (alive.expired()) return;
        if (done) return feed(TargetEvent::failure_heard);
        if (!context_.peers.is_up(record_.from)) return;  // the next session tells it again
        again_ = context_.loop.after(migrate::kTellAgain, [this] { on_session_up(); });
      },
      migrate::kNotifyTimeout);
}

bool TargetMove::settled() const {
  return machine_.state() == TargetState::owner || migrate::is_final(machine_.state());
}

nlohmann::json TargetMove::describe() const {
  nlohmann::json json = {{"id", record_.id.text()},
                         {"vm", record_.spec.name},
                         {"tenant", record_.spec.tenant},
                         {"from", record_.from},
                         {"to", context_.config.name},
                         {"started", record_.started},
                         {"by", record_.by},
                         {"state", machine_.state() == TargetState::owner     ? "done"
                                   : machine_.state() == TargetState::refused ? "aborted"
                                   : machine_.state() == TargetState::loaded  ? "switching"
                                                                              : "copying"},
                         {"reason", record_.reason}};
  if (!record_.hooks.is_null()) json["hooks"]["post_resume"] = record_.hooks;
  if (!record_.clock.is_null()) json["clock"] = record_.clock;
  if (!record_.flip.is_null()) json["flip"] = record_.flip;
  return json;
}

}  // namespace godwit::agent
