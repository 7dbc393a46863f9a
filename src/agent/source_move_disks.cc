// The disks of a move beside its memory.
#include "agent/source_move.hh"

#include "agent/replicas.hh"
#include "qemu/block_jobs.hh"

namespace godwit::agent {

using migrate::SourceEvent;

void SourceMove::hold_replicas() {
  if (const Vm* vm = context_.vms.find(record_.vm)) {
    replicas_held_ = context_.replicas.hold(vm->spec().id);
  }
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

}  // namespace godwit::agent
