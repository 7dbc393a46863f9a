// The memory that follows in post-copy.
#include "agent/source_move.hh"

#include <nlohmann/json.hpp>

#include "migrate/bounds.hh"

namespace godwit::agent {

using migrate::SourceEvent;
using migrate::SourceState;

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

}  // namespace godwit::agent
