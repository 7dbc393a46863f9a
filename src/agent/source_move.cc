#include "agent/source_move.hh"

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "agent/move_queue.hh"
#include "agent/relocations.hh"
#include "migrate/bounds.hh"
#include "os/wall_clock.hh"
#include "qemu/commands.hh"
#include "qemu/json.hh"
#include "qemu/nic_device.hh"
#include "qemu/receive_ring.hh"
#include "qemu/trapped_frame.hh"

namespace godwit::agent {

using migrate::OnDiverge;
using migrate::SourceEffect;
using migrate::SourceEvent;
using migrate::SourceState;

namespace {

constexpr Nanoseconds kTeardownDelay = milliseconds(500);

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
  network_is_late_ = handed_over();  // after a restart
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
      snapshots_.reset();
      return;  // resume_guest does both, in QEMU's order
    case SourceEffect::resume_guest:
      return resume_guest();
    case SourceEffect::resume_ports:
      context_.relocations.stay(record_.uplinks);
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
  nlohmann::json uplinks = nlohmann::json::array();
  for (const PortId& uplink : record_.uplinks) {
    const auto described = context_.network.describe_nic(uplink);
    if (!described) return feed(SourceEvent::target_failed, described.error().text);
    uplinks.push_back(*described);
  }
  const auto marker = context_.disks.mark(vm->spec());
  const nlohmann::json body = {
      {"id", record_.id.text()},
      {"marker", marker ? marker->id().text() : ""},
      {"shared_disks", record_.shared_disks},
      {"spec", qemu::to_json(vm->spec())},
      {"ports", ports},
      {"uplinks", uplinks},
      {"leading", to_json(leading_of(record_))},
      {"second_nic", record_.second_nic.text()},
      {"epoch", record_.epoch},
      {"by", record_.by},
      {"codec", to_json(codec())},
      {"group", to_json(shared_place())},
      {"snapshots", qemu::to_json(snapshots_there_)},
      {"postcopy", goes_postcopy(record_)},
      {"elsewhere", context_.peers.protocol(record_.to) >= kElsewhereProtocol}};
  context_.peers.request(
      record_.to, "migration.prepare", body,
      [this, marker, alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& reply) {
        if (alive.expired()) return;
        if (reply) return feed(SourceEvent::target_prepared);
        if (!context_.peers.is_up(record_.to)) break_off();
        feed(SourceEvent::target_failed, fmt::format("host {} cannot take vm {}: {}", record_.to,
                                                     record_.vm, reply.error().text));
      },
      migrate::kPrepareTimeout);
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
  qemu::newest_received_after_barrier(vm->qmp(), qemu::nic_device_ids(vm->spec()),
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
  context_.relocations.leave(record_.uplinks, record_.to, record_.epoch);
}

void SourceMove::owned(const nlohmann::json& reply) {
  if (machine_.state() != SourceState::released) return;
  milestones_.owned = context_.loop.now();
  record_.handed_over_ms = os::wall_clock().count();
  milestones_.resume_at_target = Nanoseconds(qemu::unsigned_at(reply, "resume_ns"));
  milestones_.runs_at_target = Nanoseconds(qemu::unsigned_at(reply, "runs_ns"));
  if (memory_) {
    memory_->fill(report_);
    if (disks_) {
      const auto disks = disks_->progress();
      report_.disks = {.total_bytes = disks.total_bytes + sent_of_snapshots_.total_bytes,
                       .sent_bytes = disks.sent_bytes + sent_of_snapshots_.sent_bytes,
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
  if (qemu::member(reply, "clock").is_object())
    record_.clock = to_json(clock_report(reply["clock"]));
  feed(SourceEvent::target_owns);
  if (!machine_.memory_follows()) return;
  if (Vm* vm = context_.vms.find(record_.vm)) vm->leave();
  if (memory_broken_) return recover_memory();
  if (memory_) memory_->serve();
}

void SourceMove::restart() {
  break_off();
  feed(SourceEvent::restarted);
}

void SourceMove::break_off() {
  if (may_go_on(record_)) record_.broken_off = true;
}

void SourceMove::went_on(const std::optional<MigrationId>& as) {
  if (as) record_.resumed_as = as->text();
  record_.broken_off = as.has_value();
  save();
  if (machine_.state() == SourceState::aborted) publish_done();
}

void SourceMove::give_up() {
  if (goes_on(record_)) went_on(std::nullopt);
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
  if (snapshots_ && changes.bandwidth) snapshots_->set_bandwidth(*changes.bandwidth);
  if (!memory_) return {};
  if (changes.max_downtime || changes.on_diverge) memory_->set_limits(limits());
  if (changes.bandwidth) memory_->set_bandwidth(*changes.bandwidth);
  return {};
}

void SourceMove::regroup(const GroupPlace& place) {
  record_.group->cap = place.cap;
  record_.group->hold = place.hold;
  save();
}

}  // namespace godwit::agent
