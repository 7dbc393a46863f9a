// The memory that follows in post-copy.
#include "agent/target_move.hh"

#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>

#include "qemu/kept_socket.hh"

namespace godwit::agent {

using migrate::TargetEvent;
using migrate::TargetState;

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

}  // namespace godwit::agent
