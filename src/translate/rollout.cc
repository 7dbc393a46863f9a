#include "translate/rollout.hh"

#include <algorithm>

#include "base/check.hh"

namespace godwit::translate {

Rollout::Rollout(const Fabric& fabric, const GuestMove& move, std::uint64_t epoch, Phase reached)
    : fabric_(fabric),
      move_(move),
      epoch_(epoch),
      devices_(devices_of(fabric, move)),
      reached_(reached),
      step_(reached),
      wanted_(reached) {}

void Rollout::undo() {
  CHECK(wanted_ < Phase::forwarded || wanted_ == Phase::undone);
  if (wanted_ == Phase::undone) return;
  wanted_ = Phase::undone;
  begin_step();
  advance();
}

void Rollout::go_to(Phase phase) {
  CHECK(wanted_ != Phase::undone);
  if (phase <= wanted_) return;
  const bool was_idle = is_reached();
  wanted_ = phase;
  if (was_idle) begin_step();
  advance();
}

void Rollout::abandon(DeviceIndex device) {
  abandoned_.insert(device);
  advance();
}

Phase Rollout::next_phase() const {
  if (wanted_ == Phase::undone) return wanted_;
  return static_cast<Phase>(static_cast<int>(reached_) + 1);
}

void Rollout::begin_step() {
  std::erase_if(waiting_, [this](const auto& each) { return !abandoned_.contains(each.first); });
  step_ = next_phase();
  auto tables = tables_at(fabric_, move_, step_);
  for (const DeviceIndex device : devices_) {
    if (is_of_source(step_) && device != move_.from) continue;
    waiting_[device] = {.phase = step_, .rules = std::move(tables[device])};
  }
}

bool Rollout::is_step_done() const {
  return std::ranges::all_of(waiting_,
                             [this](const auto& each) { return abandoned_.contains(each.first); });
}

void Rollout::advance() {
  while (!is_reached() && is_step_done()) {
    reached_ = step_;
    if (!is_reached()) begin_step();
  }
}

std::vector<Rollout::Request> Rollout::due(Instant now) {
  std::vector<Request> requests;
  for (auto& [device, waiting] : waiting_) {
    if (waiting.asked && now < *waiting.asked + kAskAgain) continue;
    waiting.asked = now;
    requests.push_back({device, {epoch_, waiting.phase}, waiting.rules});
  }
  return requests;
}

std::optional<Instant> Rollout::next() const {
  std::optional<Instant> soonest;
  for (const auto& [device, waiting] : waiting_) {
    const Instant when = waiting.asked ? *waiting.asked + kAskAgain : Instant{};
    soonest = std::min(soonest.value_or(when), when);
  }
  return soonest;
}

void Rollout::has(DeviceIndex device, const Version& version) {
  const auto found = waiting_.find(device);
  if (found == waiting_.end() || version != Version{epoch_, found->second.phase}) return;
  waiting_.erase(found);
  advance();
}

void Rollout::refused(DeviceIndex device, const Version& version, std::string why) {
  const auto found = waiting_.find(device);
  if (found == waiting_.end() || version != Version{epoch_, found->second.phase}) return;
  found->second.refusal = std::move(why);
}

std::vector<std::pair<DeviceIndex, std::string>> Rollout::missing() const {
  std::vector<std::pair<DeviceIndex, std::string>> missing;
  for (const auto& [device, waiting] : waiting_) missing.emplace_back(device, waiting.refusal);
  return missing;
}

bool Rollout::is_refused() const {
  return std::ranges::any_of(waiting_,
                             [](const auto& each) { return !each.second.refusal.empty(); });
}

}  // namespace godwit::translate
