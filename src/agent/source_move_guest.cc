// What is done for the guest beside its move: hooks, and its clock if it goes on here.
#include "agent/source_move.hh"

#include <nlohmann/json.hpp>

namespace godwit::agent {

using migrate::SourceEvent;
using migrate::SourceState;

HookCall SourceMove::hook_call(HookMoment moment, std::string outcome) const {
  return {.moment = moment,
          .migration = record_.id,
          .vm = record_.vm,
          .from = context_.config.name,
          .to = record_.to,
          .outcome = std::move(outcome)};
}

void SourceMove::pre_pause() {
  const HookCall call = hook_call(HookMoment::pre_pause, {});
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
  const HookCall call = hook_call(HookMoment::post_resume, "aborted");
  if (!has_hooks(context_.config.hooks, call.moment)) return;
  hooks_ = std::make_unique<HookRun>(context_.loop, context_.config.hooks, call,
                                     [this](const HookOutcome& outcome) { hooks_ended(outcome); });
}

void SourceMove::hooks_ended(const HookOutcome& outcome) {
  record_.hooks["post_resume"] = to_json(outcome);
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
  if (machine_.state() != SourceState::aborting) return feed(SourceEvent::guest_resumed);
  let_go_of_disks([this] { let_run(); });
}

// It may have stood for the end of its disks' taps: whatever became of that, it runs.
void SourceMove::let_run() {
  if (machine_.state() != SourceState::aborting) return;  // it has been seen to
  Vm* vm = context_.vms.find(record_.vm);
  if (vm == nullptr) return feed(SourceEvent::guest_died);
  qemu::cont_until_running(vm->qmp(), [this, alive = std::weak_ptr(alive_)](const Result<>& runs) {
    if (alive.expired()) return;
    runs ? feed(SourceEvent::guest_resumed) : memory_failed(runs.error().text);
  });
}

void SourceMove::clock_corrected(const ClockReport& report) {
  record_.clock = to_json(report);
  save();
}

}  // namespace godwit::agent
