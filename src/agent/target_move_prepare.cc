// What has to be here before anything comes: ports, what is known of the vm, a QEMU that waits, its
// disks.
#include "agent/target_move.hh"

#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>

#include "agent/contents.hh"
#include "agent/relocations.hh"
#include "agent/replicas.hh"
#include "migrate/bounds.hh"
#include "qemu/json.hh"

namespace godwit::agent {

using migrate::TargetEvent;
using migrate::TargetState;

bool TargetMove::hold_ports() {
  for (const auto& described : record_.ports) {
    const auto held =
        context_.network.prepare_held(described, PortKind::nic, record_.from, record_.epoch);
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

void TargetMove::prepare_guest() {
  if (!codec_ || codec_->most_known == 0) return find_elsewhere({});
  context_.known.find(record_.spec.id, [this, alive = std::weak_ptr(alive_)](auto kept) {
    if (!alive.expired()) find_in_images({.kept = std::move(kept)});
  });
}

void TargetMove::find_in_images(codec::Known known) {
  const std::uint64_t kept = known.kept ? known.kept->pages() : 0;
  context_.contents.find_pages(
      record_.spec, codec_->most_known - std::min(kept, codec_->most_known),
      [this, known = std::move(known), alive = std::weak_ptr(alive_)](auto pages) mutable {
        if (alive.expired()) return;
        known.others = std::move(pages);
        find_elsewhere(std::move(known));
      });
}

void TargetMove::find_elsewhere(codec::Known known) {
  if (!wants_elsewhere_ || !takes_disks()) return prepare_guest(std::move(known));
  context_.contents.find(record_.spec, [this, known = std::move(known),
                                        alive = std::weak_ptr(alive_)](auto elsewhere) {
    if (alive.expired()) return;
    elsewhere_ = std::move(elsewhere);
    prepare_guest(known);
  });
}

void TargetMove::prepare_guest(codec::Known known) {
  if (machine_.state() != TargetState::preparing || !hold_ports()) return;
  stage_network();
  context_.replicas.make_way(record_.spec.id);
  auto incoming = context_.vms.run_incoming(
      record_.spec, record_.id, takes_disks() ? std::optional(record_.from) : std::nullopt);
  if (!incoming) return feed(TargetEvent::load_failed, incoming.error().text);
  start_incoming(std::move(*incoming), std::move(known));
}

void TargetMove::start_incoming(Vms::Incoming incoming, codec::Known known) {
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
                        [this, &qmp = vm.qmp(), alive = vm.qmp().lifetime()](std::string why) {
                          if (alive.expired() || qmp.is_closed())
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

std::vector<PortId> TargetMove::uplinks() const {
  std::vector<PortId> uplinks;
  for (const auto& described : record_.uplinks) {
    const auto port = id_field<PortId>(qemu::member(described, "port"), "id");
    if (port) uplinks.push_back(*port);
  }
  return uplinks;
}

// Before the guest stands it is known that each device can have what it needs.
void TargetMove::stage_network() {
  if (record_.uplinks.empty()) return;
  network_staged_ = false;
  context_.relocations.stage(
      record_.uplinks, record_.from, record_.epoch, record_.leading,
      [this, alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& done) {
        if (alive.expired()) return;
        if (!done) return feed(TargetEvent::load_failed, done.error().text);
        network_staged_ = true;
        maybe_prepared();
      });
}

void TargetMove::maybe_prepared() {
  if (network_staged_ && listening_ && ports_held_ && rescue_ready_ && disks_ready_)
    feed(TargetEvent::prepared);
}

}  // namespace godwit::agent
