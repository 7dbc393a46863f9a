// What a move tells: the API, those who follow it, the journal of events.
#include "agent/source_move.hh"

#include <nlohmann/json.hpp>

namespace godwit::agent {

using migrate::SourceState;

namespace {

constexpr Nanoseconds kProgressInterval = milliseconds(250);
constexpr std::uint64_t kMeasured = 1U << 20;  // delivered; less tells no rate
// Whoever follows the move is told how its network fared, if that is known so soon.
constexpr Nanoseconds kNetworkPatience = seconds(10);

}  // namespace

void SourceMove::recorded() {
  const auto before = std::exchange(published_, std::pair(record_.state, record_.memory_follows));
  if (before == published_) return;  // what was heard, only
  if (!before || before->first != record_.state) {
    bound_.reset();
    stuck_.clear();
  }
  publish_state();
  tell_followers();
}

void SourceMove::publish_state() {
  context_.events.publish("migration", {{"id", record_.id.text()},
                                        {"vm", record_.vm},
                                        {"tenant", record_.tenant},
                                        {"by", record_.by},
                                        {"state", shown_state()},
                                        {"reason", stuck() ? stuck_ : record_.reason}});
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
  publish_done();
  if (state != SourceState::aborted) return;
  // It refers to the vm, which may be removed from now on; and it may be calling us.
  context_.loop.post([this, alive = std::weak_ptr(alive_)] {
    if (alive.expired()) return;
    disks_.reset();
    memory_.reset();
    replicas_held_.reset();
  });
}

// Not before it is said which move goes on with it, or that its network has followed.
void SourceMove::publish_done() {
  if (goes_on(record_)) return;
  if (network_follows()) {
    network_patience_ = context_.loop.after(kNetworkPatience, [this] {
      network_is_late_ = true;
      publish_done();
    });
    return;
  }
  context_.events.publish_done(record_.id, describe());
}

bool SourceMove::network_follows() const {
  const bool is_told = (record_.uplinks.empty() || !record_.network.is_null()) &&
                       (record_.second_nic.is_zero() || !record_.flip.is_null());
  return !is_told && handed_over() && !network_is_late_;
}

void SourceMove::network_moved(const nlohmann::json& told) {
  const bool is_awaited = network_follows();
  record_.network = told;
  save();
  network_patience_.reset();
  if (is_awaited) publish_done();
}

void SourceMove::flipped(const FlipReport& report) {
  const bool is_awaited = network_follows();
  record_.flip = to_json(report);
  save();
  network_patience_.reset();
  if (is_awaited) publish_done();
}

void SourceMove::publish_progress() {
  context_.events.publish_progress(record_.id, progress());
  progress_timer_ = context_.loop.after(kProgressInterval, [this] { publish_progress(); });
}

std::string SourceMove::shown_state() const {
  if (stuck()) return "stuck";
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
  if (stuck()) {
    json["reason"] = fmt::format("{}; {}", machine_.reason(), stuck_);
    json.erase("goes_on");
  }
  if (record_.shared_disks) json["shared_disks"] = true;
  if (network_follows()) json["network_follows"] = true;
  if (!record_.hooks.is_null()) json["hooks"] = record_.hooks;
  if (!record_.clock.is_null()) json["clock"] = record_.clock;
  if (!record_.flip.is_null()) json["flip"] = record_.flip;
  if ((memory_ || rescue_ || snapshots_) && !migrate::is_final(machine_.state()))
    json["progress"] = progress();
  return json;
}

nlohmann::json SourceMove::progress() const {
  if (snapshots_) {
    nlohmann::json json = {{"phase", "snapshots"}};
    if (const auto sent = snapshots_->progress()) json["disks"] = disk_progress(*sent);
    return json;
  }
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
  if (disks_) json["disks"] = disk_progress(disks_->progress());
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

nlohmann::json SourceMove::disk_progress(const DiskSource::Progress& disks) {
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

}  // namespace godwit::agent
