// The guest begins to run here: QEMU is told, then hooks, its way out and its clock.
#include "agent/target_move.hh"

#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>

#include "agent/relocations.hh"
#include "migrate/bounds.hh"

namespace godwit::agent {

using migrate::TargetEvent;

void TargetMove::run_guest() {
  Vm* vm = guest();
  if (vm == nullptr) return reply_owns();  // ran already, or dead: it was ours to lose
  cont_at_ = context_.loop.now();
  qemu::cont_until_running(vm->qmp(), [this, alive = std::weak_ptr(alive_)](const Result<>& done) {
    if (alive.expired()) return;
    if (done) return guest_runs(context_.loop.now());
    spdlog::error("vm {}: {}", record_.spec.name, done.error().text);
    feed(TargetEvent::guest_running);
  });
}

// By QEMU's event, or its answer: in post-copy that may have to wait for a page.
void TargetMove::guest_runs(Instant since) {
  if (std::exchange(runs_, true)) return;
  resume_took_ = std::max(since - cont_at_, Nanoseconds(0));
  feed(TargetEvent::guest_running);
  context_.vms.arrived(record_.spec.name);
  context_.known.forget(record_.spec.id);
  if (Vm* here = context_.vms.find(record_.spec.name)) flip(*here);
}

// Then its clock: the guest's agent has one conversation at a time.
void TargetMove::flip(Vm& vm) {
  if (record_.second_nic.is_zero() || !record_.flip.is_null()) return correct_clock(vm);
  flip_ = flip_to(context_.loop, vm, record_.second_nic, [this](const FlipReport& report) {
    record_.flip = to_json(report);
    tell_source("flip", record_.flip);
    context_.loop.post([this, alive = std::weak_ptr(alive_)] {
      if (alive.expired()) return;
      flip_.reset();
      if (Vm* here = context_.vms.find(record_.spec.name)) correct_clock(*here);
    });
  });
}

void TargetMove::follow_network() {
  context_.relocations.follow(
      uplinks(), [this, alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& told) {
        if (!alive.expired() && told) tell_source("network", *told);
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

}  // namespace godwit::agent
