// The vm's memory: how it is copied, and what becomes of it when that fails.
#include "agent/source_move.hh"

#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>

#include "agent/page_index.hh"
#include "migrate/bounds.hh"

namespace godwit::agent {

using migrate::OnDiverge;
using migrate::SourceEvent;
using migrate::SourceState;

// None if the target could not decode it: its agent is of a version before.
std::optional<codec::Settings> SourceMove::codec() const {
  const unsigned protocol = context_.peers.protocol(record_.to);
  if (!record_.compact || protocol < kCodecProtocol) return std::nullopt;
  codec::Settings settings = codec_settings(record_, protocol);
  if (Vm* vm = context_.vms.find(record_.vm); vm != nullptr && record_.known) {
    settings.most_known = vm->spec().memory.bytes / qemu::kPageBytes + kMostPages;
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
                                 if (disks_) disks_->release_writes();
                               }});
  memory_->start();
  if (copies_disks(*vm)) start_disks(*vm);
  publish_progress();
}

std::size_t SourceMove::lanes() const {
  if (context_.peers.protocol(record_.to) < kLanesProtocol) return 1;
  return record_.lanes != 0 ? record_.lanes : lanes_to_fill_a_path();
}

migrate::PauseLimits SourceMove::limits() const {
  return {.max_downtime = record_.max_downtime,
          .policy = record_.stop_policy,
          .pause_on_diverge = pauses(record_),
          .postcopy_on_diverge = goes_postcopy(record_)};
}

// Who follows it reads why before it is aborted, or paused for longer than the limit.
void SourceMove::diverged(std::string why) {
  divergence_ = why;
  context_.events.publish_progress(record_.id, progress());
  feed(SourceEvent::diverged, std::move(why));
}

void SourceMove::resume_guest() {
  Vm* vm = context_.vms.find(record_.vm);
  if (vm == nullptr) return feed(SourceEvent::guest_died);
  if (!bound_) bound_ = context_.loop.after(context_.give_back_bound, [this] { become_stuck(); });
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
  not_resumed_ = std::move(why);
  retry_ = context_.loop.after(migrate::kResumeRetry, [this] {
    // If it runs by now, QEMU may have another move of this vm under way.
    if (machine_.state() == SourceState::aborting) resume_guest();
  });
}

// The move goes on, as a guest that stands must not be forgotten: it ends when QEMU answers, or
// does. But nobody has to wait for that.
void SourceMove::become_stuck() {
  stuck_ = fmt::format(
      "QEMU of vm {0} has not given its guest back within {1} ({2}): it may stand. It is asked "
      "again and again, and the move ends when it answers: see what holds it up, as a disk or a "
      "server that hangs. If that is beyond help, godwit vm stop {0} --force ends it",
      record_.vm, to_text(context_.give_back_bound),
      not_resumed_.empty() ? "it does not answer" : not_resumed_);
  spdlog::error("migration {}: {}", record_.id.text(), stuck_);
  publish_state();
  context_.events.close_followers(record_.id, describe());
}

void SourceMove::share_bandwidth(BitRate cap) {
  if (memory_) memory_->share_bandwidth(cap);
}

}  // namespace godwit::agent
