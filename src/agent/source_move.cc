#include "agent/source_move.hh"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "agent/move_queue.hh"
#include "agent/replicas.hh"
#include "migrate/bounds.hh"
#include "os/wall_clock.hh"
#include "qemu/block_jobs.hh"
#include "qemu/commands.hh"
#include "qemu/json.hh"
#include "qemu/receive_ring.hh"
#include "qemu/trapped_frame.hh"

namespace godwit::agent {

using migrate::OnDiverge;
using migrate::SourceEffect;
using migrate::SourceEvent;
using migrate::SourceState;

namespace {

constexpr Nanoseconds kProgressInterval = milliseconds(250);
constexpr Nanoseconds kTeardownDelay = milliseconds(500);
constexpr std::uint64_t kMeasured = 1U << 20;  // delivered; less tells no rate

bool goes_postcopy(const SourceRecord& record) { return record.on_diverge == OnDiverge::postcopy; }

// Rather than abort.
bool pauses(const SourceRecord& record) {
  return record.on_diverge == OnDiverge::pause || goes_postcopy(record);
}

}  // namespace

SourceMove::SourceMove(const Context& context, SourceRecord record)
    : context_(context),
      record_(std::move(record)),
      machine_({.hold = record_.hold, .pause_on_diverge = pauses(record_)}, record_.state,
               record_.abort_told, record_.memory_follows),
      queue_(machine_, queue_handlers<migrate::Source>(
                           "source", record_.id, machine_,
                           [this](SourceEffect effect) { return perform(effect); })) {
  milestones_.begun = context_.loop.now();
  if (Vm* vm = context_.vms.find(record_.vm)) follow(*vm);
  const bool has_begun = record_.state != SourceState::planned && !migrate::is_final(record_.state);
  if (has_begun) hold_replicas();
}

void SourceMove::follow(Vm& vm) {
  cpu_at_begin_ = vm.cpu_seconds() + process_cpu_seconds(::getpid());
  subscription_ = vm.subscribe({.event = {}, .died = [this](const std::string& reason) {
                                  feed(SourceEvent::guest_died, reason);
                                }});
}

double SourceMove::cpu_spent(const Vm& vm) const {
  return vm.cpu_seconds() + process_cpu_seconds(::getpid()) - cpu_at_begin_;
}

void SourceMove::feed(SourceEvent event, std::string text) { queue_.feed(event, std::move(text)); }

Result<> SourceMove::accept() {
  feed(SourceEvent::asked);
  if (machine_.state() == SourceState::planned) return {};
  return fail("nothing was changed: {}", machine_.reason());
}

Result<> SourceMove::perform(SourceEffect effect) {
  if (effect != SourceEffect::record) return perform_surely(effect), Result<>{};
  auto done = context_.store.record("migration-source", record_.id.text(), journal_entry());
  if (done) recorded();
  return done;
}

void SourceMove::perform_surely(SourceEffect effect) {
  switch (effect) {
    case SourceEffect::record:  // see perform()
      return;
    case SourceEffect::note:
      context_.store.put("migration-source", record_.id.text(), journal_entry());
      return recorded();
    case SourceEffect::prepare_target:
      hold_replicas();
      return prepare_target();
    case SourceEffect::start_memory:
      return start_memory();
    case SourceEffect::continue_memory:
      return memory_->continue_all();
    case SourceEffect::pre_pause:
      return pre_pause();
    case SourceEffect::allow_switchover:
      return context_.network.arm(record_.ports, [this, alive = std::weak_ptr(alive_)] {
        if (!alive.expired()) ports_armed();
      });
    case SourceEffect::pause_ports:
      if (disks_) disks_->settle();
      return context_.network.plug(record_.ports, [this, alive = std::weak_ptr(alive_)] {
        if (!alive.expired()) pause_ports();
      });
    case SourceEffect::continue_switchover:
      proceeds_ = true;
      return proceed();
    case SourceEffect::commit_target:
      return commit_target();
    case SourceEffect::cancel_memory:
      hooks_.reset();
      return;  // resume_guest does both, in QEMU's order
    case SourceEffect::resume_guest:
      return resume_guest();
    case SourceEffect::resume_ports:
      return context_.network.resume(record_.ports);
    case SourceEffect::post_resume:
      return post_resume();
    case SourceEffect::abort_target:
      return abort_target();
    case SourceEffect::release_ports:
      return context_.network.release(record_.ports, record_.epoch,
                                      [this, alive = std::weak_ptr(alive_)] {
                                        if (!alive.expired()) feed(SourceEvent::drained);
                                      });
    case SourceEffect::end_guest:
      return end_guest();
    case SourceEffect::recover_memory:
      return recover_memory();
    case SourceEffect::tell_lost:
      return tell_lost();
    case SourceEffect::forget_guest:
      disks_.reset();
      memory_.reset();
      rescue_.reset();
      subscription_.reset();
      replicas_held_.reset();
      // After a restart this may be said again, when the vm has long come back.
      if (context_.vms.is_process(record_.vm, record_.process)) {
        context_.vms.moved_away(record_.vm, record_.to,
                                record_.shared_disks    ? Vms::PastDisks::shared
                                : record_.delete_source ? Vms::PastDisks::go
                                                        : Vms::PastDisks::stay);
      }
      return;
    case SourceEffect::wait:
      return wait();
  }
}

nlohmann::json SourceMove::journal_entry() {
  record_.state = machine_.state();
  record_.reason = machine_.reason();
  record_.abort_told = machine_.abort_told();
  record_.memory_follows = machine_.memory_follows();
  return to_json(record_);
}

void SourceMove::save() {
  context_.store.put("migration-source", record_.id.text(), to_json(record_));
}

void SourceMove::recorded() {
  const auto before = std::exchange(published_, std::pair(record_.state, record_.memory_follows));
  if (before == published_) return;  // what was heard, only
  if (!before || before->first != record_.state) bound_.reset();
  context_.events.publish("migration", {{"id", record_.id.text()},
                                        {"vm", record_.vm},
                                        {"tenant", record_.tenant},
                                        {"by", record_.by},
                                        {"state", shown_state()},
                                        {"reason", record_.reason}});
  tell_followers();
}

bool SourceMove::handed_over() const {
  const SourceState state = machine_.state();
  return !machine_.memory_follows() &&
         (state == SourceState::committed || state == SourceState::draining ||
          state == SourceState::done);
}

// For them it is over when the guest runs at the target and has its memory: what is left is only
// the wires' lease.
void SourceMove::tell_followers() {
  const SourceState state = machine_.state();
  if (!handed_over() && state != SourceState::aborted) return;
  progress_timer_.reset();
  context_.events.publish_done(record_.id, describe());
  if (state != SourceState::aborted) return;
  // It refers to the vm, which may be removed from now on; and it may be calling us.
  context_.loop.post([this, alive = std::weak_ptr(alive_)] {
    if (alive.expired()) return;
    disks_.reset();
    memory_.reset();
    replicas_held_.reset();
  });
}

void SourceMove::hold_replicas() {
  if (const Vm* vm = context_.vms.find(record_.vm)) {
    replicas_held_ = context_.replicas.hold(vm->spec().id);
  }
}

void SourceMove::wait() {
  // A pause that the operator asked for may be longer than the limit: as long as predicted, twice.
  Nanoseconds pause = record_.max_downtime;
  if (memory_ && pauses(record_)) {
    pause = std::max(pause, 2 * memory_->progress().predicted_pause);
  }
  bound_ = context_.loop.after(migrate::bound_of(machine_.state(), pause),
                               [this] { feed(SourceEvent::patience_ended); });
}

void SourceMove::prepare_target() {
  Vm* vm = context_.vms.find(record_.vm);
  if (vm == nullptr) return feed(SourceEvent::guest_died);
  nlohmann::json ports = nlohmann::json::array();
  for (const PortId& port : record_.ports) {
    const auto described = context_.network.describe_nic(port);
    if (!described) return feed(SourceEvent::target_failed, described.error().text);
    ports.push_back(*described);
    context_.network.offer_move(port, record_.to, record_.epoch);
  }
  const auto marker = context_.disks.mark(vm->spec());
  const nlohmann::json body = {
      {"id", record_.id.text()},
      {"marker", marker ? marker->id().text() : ""},
      {"shared_disks", record_.shared_disks},
      {"spec", qemu::to_json(vm->spec())},
      {"ports", ports},
      {"epoch", record_.epoch},
      {"by", record_.by},
      {"codec", to_json(codec())},
      {"group", to_json(shared_place())},
      {"postcopy", goes_postcopy(record_)},
      {"elsewhere", context_.peers.protocol(record_.to) >= kElsewhereProtocol}};
  context_.peers.request(
      record_.to, "migration.prepare", body,
      [this, marker, alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& reply) {
        if (alive.expired()) return;
        if (reply) return feed(SourceEvent::target_prepared);
        feed(SourceEvent::target_failed, fmt::format("host {} cannot take vm {}: {}", record_.to,
                                                     record_.vm, reply.error().text));
      },
      migrate::kPrepareTimeout);
}

// None if the target could not decode it: its agent is of a version before.
std::optional<codec::Settings> SourceMove::codec() const {
  if (!record_.compact || context_.peers.protocol(record_.to) < kCodecProtocol) return std::nullopt;
  codec::Settings settings = codec_settings(record_);
  if (Vm* vm = context_.vms.find(record_.vm); vm != nullptr && record_.known) {
    settings.most_known = vm->spec().memory.bytes / qemu::kPageBytes;
  }
  return settings;
}

// A move that goes on with another's shares nothing: what that one offered may be lost.
std::optional<SharedPlace> SourceMove::shared_place() const {
  const auto index = shared_.lock();
  const bool shares = index && codec() && record_.cache.bytes > 0 && record_.resumes.empty() &&
                      context_.peers.protocol(record_.to) >= kGroupProtocol;
  if (!shares) return std::nullopt;
  return SharedPlace{.group = record_.group->id,
                     .member = static_cast<std::uint32_t>(record_.group->index),
                     .most_pages = index->most_pages()};
}

void SourceMove::start_memory() {
  Vm* vm = context_.vms.find(record_.vm);
  if (vm == nullptr) return feed(SourceEvent::guest_died);
  SourceMemory::Settings settings{.id = record_.id,
                                  .to = record_.to,
                                  .limits = limits(),
                                  .bandwidth = std::nullopt,
                                  .throttle = record_.on_diverge == OnDiverge::throttle,
                                  .postcopy = goes_postcopy(record_),
                                  .hold = record_.hold,
                                  .background = record_.background,
                                  .lanes = lanes(),
                                  .has_disks = copies_disks(*vm),
                                  .coding = std::nullopt};
  if (const auto coding = codec()) settings.coding = {.settings = *coding};
  if (const auto place = shared_place()) {
    settings.coding->offers = {.index = shared_.lock(), .member = place->member};
  }
  if (record_.bandwidth_bits_per_second != 0) {
    settings.bandwidth = BitRate{record_.bandwidth_bits_per_second};
  }
  memory_ = std::make_unique<SourceMemory>(
      context_.loop, *vm, context_.peers, std::move(settings), milestones_,
      SourceMemory::Events{.converged =
                               [this] {
                                 memory_converged_ = true;
                                 maybe_converged();
                               },
                           .diverged = [this](std::string why) { diverged(std::move(why)); },
                           .pre_switchover = [this] { feed(SourceEvent::at_pre_switchover); },
                           .follows = [this] { feed(SourceEvent::memory_follows); },
                           .completed = [this] { memory_completed(); },
                           .failed = [this](std::string why) { memory_failed(std::move(why)); },
                           .running = [this] { resumed(); },
                           .may_pause = [this] { return !disks_ || disks_->may_pause(); },
                           .about_to_stop =
                               [this] {
                                 if (disks_) disks_->let_go();
                               }});
  memory_->start();
  if (copies_disks(*vm)) start_disks(*vm);
  publish_progress();
}

bool SourceMove::copies_disks(const Vm& vm) const {
  return !vm.spec().disks.empty() && !record_.shared_disks;
}

void SourceMove::start_disks(Vm& vm) {
  disks_ = std::make_unique<DiskSource>(
      context_.loop, vm, memory_->link(), record_.disk_mode,
      DiskSource::Events{.begun = [this] { milestones_.disks = context_.loop.now(); },
                         .ready = [this] { memory_->begin(); },
                         .in_step = [this] { maybe_converged(); },
                         .settled =
                             [this] {
                               disks_settled_ = true;
                               milestones_.disks_settled = context_.loop.now();
                               proceed();
                             },
                         .failed = [this](std::string why) { memory_failed(std::move(why)); }});
  disks_->limit_writes(record_.max_write_latency);
  disks_->start();
}

void SourceMove::maybe_converged() {
  if (memory_converged_ && (!disks_ || disks_->may_pause())) feed(SourceEvent::converged);
}

// What the guest wrote last is at the target before its memory is.
void SourceMove::proceed() {
  if (proceeds_ && (!disks_ || disks_settled_)) memory_->proceed();
}

// Also of those that an earlier agent began; QEMU's part ends meanwhile, and is harmless until
// then.
void SourceMove::let_go_of_disks(Vm& vm) {
  disks_.reset();
  if (!vm.spec().disks.empty()) qemu::abandon_disks(vm.qmp(), vm.spec().disks.size());
}

std::size_t SourceMove::lanes() const {
  if (context_.peers.protocol(record_.to) < kLanesProtocol) return 1;
  return record_.lanes != 0 ? record_.lanes : lanes_to_fill_a_path();
}

migrate::PauseLimits SourceMove::limits() const {
  return {.max_downtime = record_.max_downtime,
          .policy = record_.stop_policy,
          .pause_on_diverge = pauses(record_)};
}

// Who follows it reads why before it is aborted, or paused for longer than the limit.
void SourceMove::diverged(std::string why) {
  divergence_ = why;
  context_.events.publish_progress(record_.id, progress());
  feed(SourceEvent::diverged, std::move(why));
}

void SourceMove::publish_progress() {
  context_.events.publish_progress(record_.id, progress());
  progress_timer_ = context_.loop.after(kProgressInterval, [this] { publish_progress(); });
}

void SourceMove::pre_pause() {
  const HookCall call{.moment = HookMoment::pre_pause,
                      .migration = record_.id,
                      .vm = record_.vm,
                      .from = context_.config.name,
                      .to = record_.to,
                      .outcome = {}};
  if (!has_hooks(context_.config.hooks, call.moment)) return feed(SourceEvent::pre_pause_done);
  hooks_ = std::make_unique<HookRun>(
      context_.loop, context_.config.hooks, call, [this](const HookOutcome& outcome) {
        record_.hooks["pre_pause"] = to_json(outcome);
        if (outcome.failure.empty() || context_.config.ignore_failed_hooks) {
          return feed(SourceEvent::pre_pause_done);
        }
        feed(SourceEvent::pre_pause_failed, outcome.failure);
      });
}

// After an abort: the guest goes on here.
void SourceMove::post_resume() {
  const HookCall call{.moment = HookMoment::post_resume,
                      .migration = record_.id,
                      .vm = record_.vm,
                      .from = context_.config.name,
                      .to = record_.to,
                      .outcome = "aborted"};
  if (!has_hooks(context_.config.hooks, call.moment)) return;
  hooks_ = std::make_unique<HookRun>(context_.loop, context_.config.hooks, call,
                                     [this](const HookOutcome& outcome) { hooks_ended(outcome); });
}

void SourceMove::clock_corrected(const ClockReport& report) {
  record_.clock = to_json(report);
  save();
}

// Here again, after an abort.
void SourceMove::resumed() {
  Vm* vm = context_.vms.find(record_.vm);
  if (vm != nullptr && milestones_.stopped != Instant{} &&
      machine_.state() == SourceState::aborting) {
    clock_ = correct_clock(context_.loop, *vm, context_.loop.now() - milestones_.stopped,
                           [this](const ClockReport& report) { clock_corrected(report); });
  }
  feed(SourceEvent::guest_resumed);
}

void SourceMove::hooks_ended(const HookOutcome& outcome) {
  record_.hooks["post_resume"] = to_json(outcome);
  save();
}

// What QEMU was given before the ports were armed it takes first: what it keeps at STOP is of
// later.
void SourceMove::ports_armed() {
  Vm* vm = context_.vms.find(record_.vm);
  if (vm == nullptr) return;  // its death is an event of its own
  qemu::main_loop_barrier(vm->qmp(), [this, alive = std::weak_ptr(alive_)](const Result<>&) {
    if (!alive.expired() && memory_) memory_->allow_switchover();
  });
}

void SourceMove::pause_ports() {
  const auto pause = [this, alive = std::weak_ptr(alive_)](std::vector<Bytes> newest) {
    if (alive.expired()) return;
    context_.network.pause(record_.ports, std::move(newest), [this, alive] {
      if (alive.expired()) return;
      milestones_.ports_paused = context_.loop.now();
      feed(SourceEvent::ports_paused);
    });
  };
  Vm* vm = context_.vms.find(record_.vm);
  if (vm == nullptr) return pause({});
  // Without its answer QEMU is dying, and the move with it.
  qemu::newest_received_after_barrier(vm->qmp(), record_.ports.size(),
                                      memory_ && !memory_->stop_asked(), pause);
}

void SourceMove::commit_target() {
  milestones_.rtt = context_.peers.rtt(record_.to);
  nlohmann::json body = {{"id", record_.id.text()}};
  // When it is read there the vm's clock has stood still for so long.
  if (milestones_.stopped != Instant{}) {
    body["behind_ns"] = (context_.loop.now() - milestones_.stopped + milestones_.rtt / 2).count();
  }
  context_.peers.request(
      record_.to, "migration.commit", body,
      [this, alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& reply) {
        if (alive.expired() || !reply) return;  // unanswered: the bound asks again
        if (qemu::flag_at(*reply, "owns")) return owned(*reply);
        if (reply->contains("refuses")) {
          feed(SourceEvent::target_refuses, text_field_or(*reply, "refuses", ""));
        }
      },
      migrate::kCommitTimeout);
}

void SourceMove::owned(const nlohmann::json& reply) {
  if (machine_.state() != SourceState::released) return;
  milestones_.owned = context_.loop.now();
  record_.handed_over_ms = os::wall_clock().count();
  milestones_.resume_at_target = Nanoseconds(qemu::unsigned_at(reply, "resume_ns"));
  if (memory_) {
    memory_->fill(report_);
    if (disks_) {
      const auto disks = disks_->progress();
      report_.disks = {.total_bytes = disks.total_bytes,
                       .sent_bytes = disks.sent_bytes,
                       .same_bytes = disks.same_bytes,
                       .elsewhere_bytes = disks.elsewhere_bytes,
                       .mean_write = disks.mean_write,
                       .slowest_write = disks.slowest_write,
                       .usual_write = disks.usual_write};
    }
    migrate::fill_times(report_, milestones_);
    if (const Vm* vm = context_.vms.find(record_.vm)) report_.source_cpu_seconds = cpu_spent(*vm);
    report_.target_cpu_seconds = qemu::number_at(reply, "cpu_s");
    report_.held_frames = qemu::unsigned_at(reply, "held_frames");
    report_.held_dropped = qemu::unsigned_at(reply, "held_dropped");
    record_.report = migrate::to_json(report_);
  }
  if (reply.contains("clock")) record_.clock = to_json(clock_report(reply["clock"]));
  feed(SourceEvent::target_owns);
  if (!machine_.memory_follows()) return;
  if (Vm* vm = context_.vms.find(record_.vm)) vm->leave();
  if (memory_broken_) return recover_memory();
  if (memory_) memory_->serve();
}

// ---- the memory that follows in post-copy ----

void SourceMove::memory_completed() {
  if (machine_.memory_follows() && milestones_.owned != Instant{}) {
    report_.memory_followed = context_.loop.now() - milestones_.owned;
    if (memory_) memory_->fill(report_);
    record_.report = migrate::to_json(report_);
  }
  feed(SourceEvent::memory_completed);
}

void SourceMove::target_needs_memory() {
  return rescue_ ? rescue_->target_has_none() : recover_memory();
}

void SourceMove::recover_memory() {
  if (!machine_.memory_follows() || machine_.state() == SourceState::released) return;
  Vm* vm = context_.vms.is_process(record_.vm, record_.process) ? context_.vms.find(record_.vm)
                                                                : nullptr;
  if (vm == nullptr) return feed(SourceEvent::guest_died);
  vm->leave();
  disks_.reset();
  // It may be calling us.
  context_.loop.post([gone = std::shared_ptr<SourceMemory>(std::move(memory_))] {});
  MemoryRescue::Settings settings{.id = record_.id, .to = record_.to, .bandwidth = {}};
  if (record_.bandwidth_bits_per_second != 0) {
    settings.bandwidth = BitRate{record_.bandwidth_bits_per_second};
  }
  rescue_ = std::make_unique<MemoryRescue>(
      context_.loop, *vm, context_.peers, std::move(settings),
      MemoryRescue::Events{.completed = [this] { memory_completed(); }});
}

void SourceMove::tell_lost() {
  context_.peers.request(
      record_.to, "migration.lost", {{"id", record_.id.text()}, {"reason", machine_.reason()}},
      [this, alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& reply) {
        if (alive.expired() || reply) return;
        again_ = context_.loop.after(migrate::kTellAgain, [this] { tell_lost(); });
      },
      migrate::kNotifyTimeout);
}

void SourceMove::resume_guest() {
  Vm* vm = context_.vms.find(record_.vm);
  if (vm == nullptr) return feed(SourceEvent::guest_died);
  let_go_of_disks(*vm);
  if (!memory_) {
    // After a restart, or before memory ever moved: whatever QEMU is doing, it ends in running.
    memory_ = std::make_unique<SourceMemory>(
        context_.loop, *vm, context_.peers,
        SourceMemory::Settings{.id = record_.id,
                               .to = record_.to,
                               .limits = {},
                               .bandwidth = {},
                               .background = false,
                               .coding = {}},
        milestones_,
        SourceMemory::Events{.converged = [] {},
                             .diverged = [](const std::string&) {},
                             .pre_switchover = [] {},
                             .completed = [] {},
                             .failed = [this](std::string why) { memory_failed(std::move(why)); },
                             .running = [this] { resumed(); }});
  }
  memory_->abort(machine_.reason());
}

void SourceMove::memory_failed(std::string why) {
  if (machine_.memory_follows()) {
    spdlog::warn("migration {}: {}", record_.id.text(), why);
    memory_broken_ = true;
    return recover_memory();
  }
  if (machine_.state() != SourceState::aborting) {
    return feed(SourceEvent::memory_failed, std::move(why));
  }
  // The guest must run again: QEMU is asked until it does, or dies.
  spdlog::error("migration {}: {}; trying again", record_.id.text(), why);
  retry_ = context_.loop.after(migrate::kResumeRetry, [this] {
    // If it runs by now, QEMU may have another move of this vm under way.
    if (machine_.state() == SourceState::aborting) resume_guest();
  });
}

void SourceMove::give_up() {
  record_.given_up = true;
  feed(SourceEvent::abort_requested, "aborted on request");
}

void SourceMove::abort_target() {
  context_.peers.request(
      record_.to, "migration.abort",
      {{"id", record_.id.text()}, {"reason", machine_.reason()}, {"given_up", record_.given_up}},
      [this, alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& reply) {
        if (alive.expired()) return;
        if (reply) return feed(SourceEvent::abort_heard);
        if (!context_.peers.is_up(record_.to)) return;  // the next session tells it again
        again_ =
            context_.loop.after(migrate::kTellAgain, [this] { feed(SourceEvent::session_up); });
      },
      migrate::kAbortTimeout);
}

// QEMU stands in postmigrate and holds nothing that is not at the target; what it holds may be of
// use when the vm comes back. Giving back a guest's
// memory keeps the kernel busy for tens of milliseconds: that waits until the guest is well under
// way.
void SourceMove::end_guest() {
  const auto end = [this, alive = std::weak_ptr(alive_)] {
    if (alive.expired()) return;
    kill_qemu(record_.process);
    feed(SourceEvent::guest_ended);
  };
  // Known no longer after a restart; then nothing is kept of it.
  Vm* vm = context_.vms.is_process(record_.vm, record_.process) ? context_.vms.find(record_.vm)
                                                                : nullptr;
  if (vm == nullptr) return (void)(teardown_ = context_.loop.after(kTeardownDelay, end));
  context_.known.keep(vm->spec().id, vm->spec().memory, record_.process, kTeardownDelay, end);
}

Result<> SourceMove::set(const MoveChanges& changes) {
  const bool throttles = record_.on_diverge == OnDiverge::throttle;
  if (changes.on_diverge && throttles != (*changes.on_diverge == OnDiverge::throttle)) {
    return fail("whether a move throttles is said as it begins: QEMU cannot change it meanwhile");
  }
  if (changes.on_diverge &&
      goes_postcopy(record_) != (*changes.on_diverge == OnDiverge::postcopy)) {
    return fail("whether a move may go post-copy is said as it begins: both QEMUs prepare for it");
  }
  divergence_.clear();
  if (changes.max_downtime) record_.max_downtime = *changes.max_downtime;
  if (changes.bandwidth) record_.bandwidth_bits_per_second = changes.bandwidth->bits_per_second;
  if (changes.on_diverge) record_.on_diverge = *changes.on_diverge;
  machine_.set_pause_on_diverge(pauses(record_));
  save();
  if (rescue_ && changes.bandwidth) rescue_->set_bandwidth(*changes.bandwidth);
  if (!memory_) return {};
  if (changes.max_downtime || changes.on_diverge) memory_->set_limits(limits());
  if (changes.bandwidth) memory_->set_bandwidth(*changes.bandwidth);
  return {};
}

void SourceMove::share_bandwidth(BitRate cap) {
  if (memory_) memory_->share_bandwidth(cap);
}

void SourceMove::regroup(const GroupPlace& place) {
  record_.group->cap = place.cap;
  record_.group->hold = place.hold;
  save();
}

// Before it is known: all.
double SourceMove::remaining_bytes() const {
  if (memory_ && memory_->progress().total_bytes > 0) {
    return static_cast<double>(memory_->progress().remaining_bytes);
  }
  Vm* vm = context_.vms.find(record_.vm);
  return vm != nullptr ? static_cast<double>(vm->spec().memory.bytes) : 0;
}

double SourceMove::dirty_bytes_per_second() const {
  return memory_ ? memory_->progress().dirty_bytes_per_second : 0;
}

void SourceMove::resumed_as(const MigrationId& id) {
  record_.resumed_as = id.text();
  save();
}

std::string SourceMove::shown_state() const {
  const SourceState state = machine_.state();
  if (state == SourceState::committed || state == SourceState::draining) {
    return machine_.memory_follows() ? "postcopy" : std::string(to_text(state));
  }
  if (state != SourceState::released) return std::string(to_text(state));
  return machine_.undecided() ? "undecided" : "switching";
}

nlohmann::json SourceMove::describe() const {
  nlohmann::json json = agent::describe(record_, context_.config.name, shown_state());
  json["stop_policy"] = migrate::to_text(record_.stop_policy);
  if (!machine_.reason().empty()) json["reason"] = machine_.reason();
  if (record_.group) json["group"] = record_.group->id.text();
  if (record_.shared_disks) json["shared_disks"] = true;
  if (!record_.resumes.empty()) json["resumes"] = record_.resumes;
  if (!record_.resumed_as.empty()) json["resumed_as"] = record_.resumed_as;
  if (!record_.hooks.is_null()) json["hooks"] = record_.hooks;
  if (!record_.clock.is_null()) json["clock"] = record_.clock;
  if ((memory_ || rescue_) && !migrate::is_final(machine_.state())) json["progress"] = progress();
  return json;
}

nlohmann::json SourceMove::disk_progress() const {
  const auto disks = disks_->progress();
  return {{"phase", !disks.ready        ? "copying"
                    : disks.synchronous ? "in-step"
                                        : "asynchronous"},
          {"total_bytes", disks.total_bytes},
          {"remaining_bytes", disks.remaining_bytes},
          {"sent_bytes", disks.sent_bytes},
          {"same_bytes", disks.same_bytes},
          {"elsewhere_bytes", disks.elsewhere_bytes},
          {"rate_bps", disks.rate.bits_per_second},
          {"eta_s", static_cast<double>(disks.eta.count()) / 1e9},
          {"mean_write_ms", to_ms(disks.mean_write)},
          {"slowest_write_ms", to_ms(disks.slowest_write)},
          {"usual_write_ms", to_ms(disks.usual_write)},
          {"held_back_bps", disks.held_back.bits_per_second}};
}

nlohmann::json SourceMove::progress() const {
  nlohmann::json json = {{"phase", shown_state()}};
  if (rescue_) {
    json.update({{"remaining_bytes", rescue_->remaining_bytes()}, {"lane_up", rescue_->lane_up()}});
  }
  if (!memory_) return json;
  const auto progress = memory_->progress();
  json.update({{"round", progress.round},
               {"remaining_bytes", progress.remaining_bytes},
               {"total_bytes", progress.total_bytes},
               {"sent_bytes", progress.sent_bytes},
               {"lane_up", progress.lanes_up > 0},
               {"lanes_up", progress.lanes_up}});
  if (disks_) json["disks"] = disk_progress();
  migrate::Report so_far;
  memory_->fill(so_far);
  json["encodings"] = migrate::to_json(so_far.encodings);
  if (const Vm* vm = context_.vms.find(record_.vm)) json["cpu_s"] = cpu_spent(*vm);
  if (progress.throttle_percent > 0) json["throttle_percent"] = progress.throttle_percent;
  if (!divergence_.empty()) json["divergence"] = divergence_;
  if (progress.sent_bytes < kMeasured) return json;
  json.update({{"rate_bps", progress.rate.bits_per_second},
               {"effective_rate_bps", progress.effective_rate.bits_per_second},
               {"dirty_bps", progress.dirty_bytes_per_second * 8},
               {"eta_s", static_cast<double>(progress.eta.count()) / 1e9}});
  if (!machine_.memory_follows()) json["predicted_pause_ms"] = to_ms(progress.predicted_pause);
  return json;
}

}  // namespace godwit::agent
