// The disks of a move beside its memory.
#include "agent/source_move.hh"

#include "agent/replicas.hh"
#include "qemu/block_jobs.hh"

namespace godwit::agent {

using migrate::SourceEvent;
using migrate::SourceState;

void SourceMove::hold_replicas() {
  if (const Vm* vm = context_.vms.find(record_.vm)) {
    replicas_held_ = context_.replicas.hold(vm->spec().id);
  }
}

// What disks have inside of their files crosses first: at the target they are made of it.
void SourceMove::begin() {
  Vm* vm = context_.vms.find(record_.vm);
  if (vm == nullptr || !copies_disks(*vm)) return feed(SourceEvent::begin);
  qemu::query_snapshots(
      vm->qmp(), vm->spec().disks,
      [this, alive = std::weak_ptr(alive_)](Result<std::vector<qemu::DiskSnapshots>> found) {
        if (alive.expired() || machine_.state() != SourceState::planned) return;
        Vm* still = context_.vms.find(record_.vm);
        if (!found) return feed(SourceEvent::abort_requested, found.error().text);
        if (found->empty() || still == nullptr) return feed(SourceEvent::begin);
        if (context_.peers.protocol(record_.to) < kSnapshotsProtocol) {
          return feed(SourceEvent::abort_requested,
                      fmt::format("host {} does not take snapshots inside of disks' files, or "
                                  "cannot be asked",
                                  record_.to));
        }
        send_snapshots(*still, *std::move(found));
      });
}

void SourceMove::send_snapshots(Vm& vm, std::vector<qemu::DiskSnapshots> snapshots) {
  hold_replicas();
  snapshots_there_ = snapshots;
  snapshots_ = std::make_unique<ReplicaSource>(
      context_.loop, vm, context_.peers,
      ReplicaSource::Settings{.to = record_.to,
                              .synced = {},
                              .bandwidth = {record_.bandwidth_bits_per_second},
                              .snapshots = std::move(snapshots)},
      ReplicaSource::Events{.lost = {}, .ended = [this](const Result<>& result) {
                              // It is telling us.
                              context_.loop.post([this, result, alive = std::weak_ptr(alive_)] {
                                if (!alive.expired()) snapshots_sent(result);
                              });
                            }});
  snapshots_->start();
  publish_progress();
}

void SourceMove::snapshots_sent(const Result<>& result) {
  if (!snapshots_) return;  // aborted
  sent_of_snapshots_ = snapshots_->progress().value_or(DiskSource::Progress{});
  snapshots_.reset();
  if (result) return feed(SourceEvent::begin);
  feed(SourceEvent::abort_requested, "snapshots in the disks' files: " + result.error().text);
}

void SourceMove::session_up() {
  if (snapshots_) snapshots_->look_for_target();
  feed(SourceEvent::session_up);
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
                         .failed =
                             [this](std::string why) {
                               if (machine_.state() != SourceState::aborting) {
                                 memory_failed(std::move(why));
                               }
                             }});
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

// Also of those that an earlier agent began. Before the move is over: the next would find its own
// taps and exports gone.
void SourceMove::let_go_of_disks(std::function<void()> then) {
  Vm* vm = context_.vms.find(record_.vm);
  if (vm == nullptr || vm->spec().disks.empty()) return then();
  const auto gone = [this, then = std::move(then), alive = std::weak_ptr(alive_)] {
    if (alive.expired()) return;
    disks_.reset();
    then();
  };
  // It may be them that tell us.
  const auto over = [gone, &loop = context_.loop] { loop.post(gone); };
  disks_ ? disks_->abandon(over)
         : qemu::abandon_disks(vm->qmp(), vm->spec().disks.size(), [over](const auto&) { over(); });
}

}  // namespace godwit::agent
