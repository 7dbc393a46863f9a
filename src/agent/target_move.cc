#include "agent/target_move.hh"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "agent/contents.hh"
#include "agent/move_queue.hh"
#include "agent/replicas.hh"
#include "migrate/bounds.hh"
#include "qemu/kept_socket.hh"

namespace godwit::agent {

using migrate::TargetEffect;
using migrate::TargetEvent;
using migrate::TargetState;

nlohmann::json to_json(const TargetRecord& record) {
  return {{"id", record.id.text()},
          {"from", record.from},
          {"state", migrate::to_text(record.state)},
          {"reason", record.reason},
          {"started", record.started},
          {"by", record.by},
          {"spec", qemu::to_json(record.spec)},
          {"ports", record.ports},
          {"epoch", record.epoch},
          {"clock", record.clock},
          {"hooks", record.hooks},
          {"refusal_told", record.refusal_told},
          {"postcopy", record.postcopy},
          {"memory_follows", record.memory_follows},
          {"shared_disks", record.shared_disks}};
}

TargetRecord target_record(const nlohmann::json& json) {
  TargetRecord record;
  const auto id = id_field<MigrationId>(json, "id");
  const auto state = migrate::target_state(json.value("state", ""));
  const auto spec = qemu::vm_spec_from_json(json.value("spec", nlohmann::json()));
  if (!id || !state || !spec) {
    fail_setup("the agent's store holds a damaged migration: {}", json.dump());
  }
  record.id = *id;
  record.state = *state;
  record.spec = *spec;
  record.from = text_field_or(json, "from", "");
  record.reason = text_field_or(json, "reason", "");
  record.started = json.value("started", std::int64_t{0});
  record.by = text_field_or(json, "by", "");
  record.ports = array_field(json, "ports");
  record.epoch = epoch_field(json, "epoch", 1);
  record.clock = json.value("clock", nlohmann::json());
  record.hooks = json.value("hooks", nlohmann::json());
  record.refusal_told = json.value("refusal_told", true);
  record.postcopy = json.value("postcopy", false);
  record.memory_follows = json.value("memory_follows", false);
  record.shared_disks = json.value("shared_disks", false);
  return record;
}

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

bool TargetMove::hold_ports() {
  for (const auto& described : record_.ports) {
    const auto held = context_.network.prepare_held(described, record_.from, record_.epoch);
    if (!held) return feed(TargetEvent::load_failed, held.error().text), false;
    holding_.push_back(*held);
  }
  if (holding_ != ports_) {
    feed(TargetEvent::load_failed, "the vm's ports are not those that come with it");
    return false;
  }
  context_.network.when_prepared(ports_, migrate::kPortsBound,
                                 [this, alive = std::weak_ptr(alive_)](const Result<>& done) {
                                   if (alive.expired()) return;
                                   if (!done)
                                     return feed(TargetEvent::load_failed, done.error().text);
                                   ports_held_ = true;
                                   maybe_prepared();
                                 });
  return true;
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

void TargetMove::prepare_guest() {
  if (!codec_ || codec_->most_known == 0) return find_elsewhere(nullptr);
  context_.known.find(record_.spec.id, [this, alive = std::weak_ptr(alive_)](auto known) {
    if (!alive.expired()) find_elsewhere(std::move(known));
  });
}

void TargetMove::find_elsewhere(std::shared_ptr<const codec::KnownPages> known) {
  if (!wants_elsewhere_ || !takes_disks()) return prepare_guest(std::move(known));
  context_.contents.find(record_.spec, [this, known = std::move(known),
                                        alive = std::weak_ptr(alive_)](auto elsewhere) {
    if (alive.expired()) return;
    elsewhere_ = std::move(elsewhere);
    prepare_guest(known);
  });
}

void TargetMove::prepare_guest(std::shared_ptr<const codec::KnownPages> known) {
  if (machine_.state() != TargetState::preparing || !hold_ports()) return;
  context_.replicas.make_way(record_.spec.id);
  auto incoming = context_.vms.run_incoming(
      record_.spec, record_.id, takes_disks() ? std::optional(record_.from) : std::nullopt);
  if (!incoming) return feed(TargetEvent::load_failed, incoming.error().text);
  start_incoming(std::move(*incoming), std::move(known));
}

void TargetMove::follow(Vm& vm) {
  subscription_ = vm.subscribe({.event =
                                    [this](const qemu::QmpEvent& event) {
                                      if (event.name == "RESUME" && cont_at_ != Instant{})
                                        guest_runs();
                                      if (incoming_) incoming_->event(event);
                                    },
                                .died =
                                    [this](const std::string& reason) {
                                      if (record_.memory_follows) memory_complete();
                                      feed(TargetEvent::guest_died, reason);
                                    }});
}

void TargetMove::start_incoming(Vms::Incoming incoming,
                                std::shared_ptr<const codec::KnownPages> known) {
  Vm& vm = *incoming.vm;
  follow(vm);
  std::optional<TransferLink::Coding> coding;
  if (codec_) {
    coding = {.settings = *codec_, .known = std::move(known), .group = std::move(group_)};
  }
  link_ = std::make_unique<TransferLink>(
      context_.loop, transfer_, stream::Role::kTarget,
      takes_disks() ? TransferLink::Disks::some : TransferLink::Disks::none, std::move(coding),
      TransferLink::Events{
          .mark = {},
          .lane_lost =
              [this](stream::LaneNumber lane, const std::string& reason) {
                if (machine_.state() == TargetState::owner && !record_.memory_follows) {
                  return end_link();
                }
                spdlog::warn("vm {}: lane {} from {} lost ({}), waiting for another",
                             record_.spec.name, lane, record_.from, reason);
              },
          .package_verified =
              [this] {
                stream_verified_ = true;
                maybe_loaded();
              },
          .memory_verified =
              [this] {
                stream_verified_ = true;
                maybe_loaded();
              },
          .failed = [this](std::string why) { feed(TargetEvent::load_failed, std::move(why)); }});
  link_->use_qemu(os::adopt_stream(context_.loop, std::move(incoming.stream), "QEMU"));
  if (takes_disks()) start_disks();
  incoming_ = std::make_unique<qemu::IncomingMigration>(
      vm.qmp(), qemu::IncomingMigration::Events{
                    .listening =
                        [this, blocks = vm.paths().blocks()] {
                          listening_ = true;
                          if (disks_) disks_->start(blocks);
                          maybe_prepared();
                        },
                    .loaded =
                        [this](bool memory_follows) {
                          guest_loaded_ = true;
                          record_.memory_follows = memory_follows;
                          maybe_loaded();
                        },
                    .postcopy = [this] { in_postcopy_ = true; },
                    .complete = [this] { memory_complete(); },
                    .failed =
                        [this, &qmp = vm.qmp()](std::string why) {
                          if (qmp.is_closed())
                            return;  // QEMU is ending: `died` follows and knows why
                          feed(TargetEvent::load_failed, std::move(why));
                        }});
  incoming_->start(incoming.uri, {.postcopy_ram = record_.postcopy});
  rescue_ready_ = !record_.postcopy;
  if (!record_.postcopy) return;
  rescue_ = std::make_unique<TargetRescue>(context_.loop, vm, [this](const Result<>& done) {
    if (!done) return feed(TargetEvent::load_failed, done.error().text);
    rescue_ready_ = true;
    maybe_prepared();
  });
}

bool TargetMove::takes_disks() const {
  return !record_.spec.disks.empty() && !record_.shared_disks;
}

void TargetMove::start_disks() {
  disks_ready_ = false;
  disks_ = std::make_unique<DiskTarget>(
      context_.loop, record_.spec, context_.disks.paths(record_.spec), DiskTarget::Seeds::all,
      std::move(elsewhere_), *link_,
      DiskTarget::Events{.ready =
                             [this] {
                               disks_ready_ = true;
                               maybe_prepared();
                             },
                         .failed =
                             [this](std::string why) {
                               keeps_disks_ = false;  // they are full, or worse
                               feed(TargetEvent::load_failed, std::move(why));
                             }});
}

// ---- the memory that follows in post-copy ----

void TargetMove::memory_complete() {
  Vm* vm = context_.vms.find(record_.spec.name);
  if (record_.postcopy && vm != nullptr) {
    qemu::close_descriptor(vm->qmp(), qemu::kKeptRescue, [](const Result<>&) {});
  }
  // Its QMP may be telling us.
  context_.loop.post([gone = std::shared_ptr<TargetRescue>(std::move(rescue_))] {});
  if (!std::exchange(record_.memory_follows, false)) return;
  context_.store.put("migration-target", record_.id.text(), to_json(record_));
}

// After a restart; QEMU may have got the last of it meanwhile.
void TargetMove::watch_rest(Vm& vm) {
  incoming_ = std::make_unique<qemu::IncomingMigration>(
      vm.qmp(), qemu::IncomingMigration::Events{.listening = {},
                                                .loaded = [](bool) {},
                                                .complete = [this] { memory_complete(); },
                                                .failed = {}});
  qemu::query_migrate(vm.qmp(), [this, alive = std::weak_ptr(alive_)](const auto& info) {
    if (alive.expired() || !info) return;
    if (info->status == qemu::MigrationStatus::completed) memory_complete();
  });
  ask_for_rest();
}

// The source has a transfer still that we know no more of.
void TargetMove::ask_for_rest() {
  const bool recovers = link_ || (rescue_ && rescue_->recovers());
  if (record_.memory_follows && !recovers) tell_source("needs_memory", true);
}

void TargetMove::on_session_up() {
  feed(TargetEvent::session_up);
  ask_for_rest();
}

void TargetMove::recover(PeerRequest request, const stream::TransferId& transfer) {
  if (machine_.state() != TargetState::owner) {
    return request.answer(fail("vm {} does not run here yet", record_.spec.name));
  }
  Vm* vm = context_.vms.find(record_.spec.name);
  if (vm == nullptr || !record_.memory_follows) {
    return request.answer(nlohmann::json{{"complete", true}});
  }
  if (link_ && transfer_ == transfer) return request.answer(nlohmann::json{{"recovers", true}});
  disks_.reset();
  link_.reset();  // QEMU sees its connection closed
  transfer_ = transfer;
  if (!rescue_) {
    rescue_ = std::make_unique<TargetRescue>(context_.loop, *vm, [](const Result<>&) {});
  }
  rescue_->recover([this, request](Result<std::unique_ptr<os::ByteStream>> qemu) {
    if (!qemu) return request.answer(std::unexpected(qemu.error()));
    use_recovered(*std::move(qemu), request);
  });
}

void TargetMove::use_recovered(std::unique_ptr<os::ByteStream> qemu, PeerRequest request) {
  link_ = std::make_unique<TransferLink>(
      context_.loop, transfer_, stream::Role::kTarget, TransferLink::Disks::none, std::nullopt,
      TransferLink::Events{.mark = {},
                           .lane_lost =
                               [this](stream::LaneNumber lane, const std::string& reason) {
                                 if (!record_.memory_follows) return end_link();
                                 spdlog::warn(
                                     "vm {}: lane {} from {} lost ({}), waiting for another",
                                     record_.spec.name, lane, record_.from, reason);
                               },
                           .memory_verified = {},
                           .failed =
                               [this](const std::string& why) {
                                 spdlog::warn("vm {}: {}", record_.spec.name, why);
                               }});
  link_->use_qemu(std::move(qemu));
  request.answer(nlohmann::json{{"recovers", true}});
}

void TargetMove::lost(const std::string& reason) {
  Vm* vm = context_.vms.find(record_.spec.name);
  if (vm == nullptr || !record_.memory_follows) return;
  spdlog::error("vm {} cannot go on: {}", record_.spec.name, reason);
  vm->kill();
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

void TargetMove::maybe_prepared() {
  if (listening_ && ports_held_ && rescue_ready_ && disks_ready_) feed(TargetEvent::prepared);
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
  feed(TargetEvent::restarted);
}

void TargetMove::run_guest() {
  Vm* vm = guest();
  if (vm == nullptr) return reply_owns();  // ran already, or dead: it was ours to lose
  cont_at_ = context_.loop.now();
  qemu::cont_until_running(vm->qmp(), [this, alive = std::weak_ptr(alive_)](const Result<>& done) {
    if (alive.expired()) return;
    if (done) return guest_runs();
    spdlog::error("vm {}: {}", record_.spec.name, done.error().text);
    feed(TargetEvent::guest_running);
  });
}

// By QEMU's event, or its answer: in post-copy that may have to wait for a page.
void TargetMove::guest_runs() {
  if (std::exchange(runs_, true)) return;
  resume_took_ = context_.loop.now() - cont_at_;
  feed(TargetEvent::guest_running);
  context_.vms.arrived(record_.spec.name);
  context_.known.forget(record_.spec.id);
  if (Vm* here = context_.vms.find(record_.spec.name)) correct_clock(*here);
}

void TargetMove::run_ports() {
  counting_ = true;
  context_.network.run(std::exchange(holding_, {}),
                       [this, alive = std::weak_ptr(alive_)](const Network::Held& held) {
                         if (alive.expired()) return;
                         counting_ = false;
                         held_.frames += held.frames;
                         held_.dropped += held.dropped;
                         if (std::exchange(owes_reply_, false)) reply_owns();
                       });
}

void TargetMove::post_resume() {
  const HookCall call{.moment = HookMoment::post_resume,
                      .migration = record_.id,
                      .vm = record_.spec.name,
                      .from = record_.from,
                      .to = context_.config.name,
                      .outcome = "moved"};
  if (!has_hooks(context_.config.hooks, call.moment)) return;
  hooks_ = std::make_unique<HookRun>(context_.loop, context_.config.hooks, call,
                                     [this](const HookOutcome& outcome) {
                                       record_.hooks = to_json(outcome);
                                       tell_source("hooks", record_.hooks);
                                     });
}

void TargetMove::correct_clock(Vm& vm) {
  if (!clock_stood_since_) return;
  const Nanoseconds behind = cont_at_ + resume_took_ - *clock_stood_since_;
  clock_ = agent::correct_clock(context_.loop, vm, behind, [this](const ClockReport& report) {
    record_.clock = to_json(report);
    tell_source("clock", record_.clock);
  });
}

// For the source's report only: unheard, it stays with ours.
void TargetMove::tell_source(const char* what, const nlohmann::json& value) {
  context_.store.put("migration-target", record_.id.text(), to_json(record_));
  context_.peers.request(
      record_.from, "migration.after", {{"id", record_.id.text()}, {what, value}},
      [](const Result<nlohmann::json>&) {}, migrate::kNotifyTimeout);
}

void TargetMove::reply_owns() {
  owes_reply_ = counting_;  // the wire thread is about to say; the guest runs meanwhile
  if (owes_reply_) return;
  double cpu = process_cpu_seconds(::getpid()) - cpu_at_begin_;
  if (Vm* vm = context_.vms.find(record_.spec.name)) cpu += vm->cpu_seconds();
  reply({{"owns", true},
         {"clock", record_.clock},
         {"resume_ns", resume_took_.count()},
         {"cpu_s", cpu},
         {"held_frames", held_.frames},
         {"held_dropped", held_.dropped}});
}

void TargetMove::reply(const nlohmann::json& body) {
  for (auto& request : std::exchange(waiting_, {})) request.answer(body);
}

void TargetMove::notify_failed() {
  context_.peers.request(
      record_.from, "migration.failed", {{"id", record_.id.text()}, {"reason", machine_.reason()}},
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
  return json;
}

}  // namespace godwit::agent
