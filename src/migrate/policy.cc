#include "migrate/policy.hh"

#include <algorithm>

namespace godwit::migrate {
namespace {

// Of the bytes that fit on paper; the rest absorbs a link that slows down during the pause.
constexpr double kAllowedShare = 0.8;
constexpr double kStallRatio = 0.8;
// A guest that dirties less than this share of what the link carries converges in the end: a round
// that did not shrink then was an accident of the hosts.
constexpr double kDivergeShare = 0.6;

Nanoseconds fixed_cost(const MemorySample& sample, const PauseCosts& costs) {
  return costs.device_state_load + costs.commit_local +
         duration_cast<Nanoseconds>(sample.rtt * costs.commit_round_trips);
}

Nanoseconds from_seconds(double value) {
  return Nanoseconds(static_cast<Nanoseconds::rep>(std::clamp(value, 0.0, 1e9) * 1e9));
}

double to_seconds(Nanoseconds duration) { return static_cast<double>(duration.count()) / 1e9; }

// Bytes of memory that can still move in the pause, on their way already or not.
double pause_holds(const MemorySample& sample, const PauseLimits& limits, const PauseCosts& costs) {
  const Nanoseconds left = limits.max_downtime - fixed_cost(sample, costs);
  if (left <= Nanoseconds(0)) return 0;
  return to_seconds(left) * sample.delivered_bytes_per_second * kAllowedShare -
         costs.device_state_bytes;
}

}  // namespace

Nanoseconds predicted_pause(const MemorySample& sample, double bytes, const PauseCosts& costs) {
  if (sample.delivered_bytes_per_second <= 0) return kMaxQemuDowntimeLimit;
  const double moved = bytes + sample.backlog_bytes + costs.device_state_bytes;
  return fixed_cost(sample, costs) + from_seconds(moved / sample.delivered_bytes_per_second);
}

double allowed_bytes(const MemorySample& sample, const PauseLimits& limits,
                     const PauseCosts& costs) {
  return std::max(0.0, pause_holds(sample, limits, costs) - sample.backlog_bytes);
}

double most_backlog(const MemorySample& sample, const PauseLimits& limits,
                    const PauseCosts& costs) {
  const double rate = sample.delivered_bytes_per_second;
  const double most =
      std::max(kLeastBacklogBytes, rate * to_seconds(sample.rtt + kBacklogBeyondRtt));
  if (sample.round < 2) return most;
  const double path = rate * to_seconds(sample.rtt) + kBacklogBeyondPath;
  return std::min(most, std::max(path, pause_holds(sample, limits, costs) / 2));
}

void DowntimePolicy::note_round(const MemorySample& sample, double allowed) {
  if (sample.round == round_) return;
  const bool first = round_ <= 1;
  const bool stalled =
      !first && sample.remaining_bytes > allowed &&
      sample.dirty_bytes_per_second > kDivergeShare * sample.delivered_bytes_per_second &&
      sample.remaining_bytes > kStallRatio * round_start_remaining_;
  stalled_rounds_ = stalled ? stalled_rounds_ + 1 : 0;
  round_ = sample.round;
  round_start_remaining_ = sample.remaining_bytes;
}

DowntimePolicy::Verdict DowntimePolicy::judge(const MemorySample& sample) {
  const double allowed = allowed_bytes(sample, limits_, costs_);
  note_round(sample, allowed);
  const double rate = sample.delivered_bytes_per_second;

  Verdict verdict{.most_backlog_bytes = most_backlog(sample, limits_, costs_)};
  if (rate <= 0) return verdict;
  // At the end of this round the guest has dirtied again what it could in the time it takes.
  const double round_seconds = (sample.remaining_bytes + sample.backlog_bytes) / rate;
  const double next = sample.dirty_bytes_per_second * round_seconds;
  verdict.predicted_pause =
      predicted_pause(sample, std::min(sample.remaining_bytes, std::max(next, 0.0)), costs_);
  const double gain = std::max(0.1, 1.0 - sample.dirty_bytes_per_second / rate);
  verdict.eta = from_seconds(round_seconds / gain);
  verdict.diverges = stalled_rounds_ >= kStalledRoundsToDiverge;

  verdict.fits =
      allowed > 0 && (sample.round >= 2 || sample.remaining_bytes <= kFirstRoundMultiple * allowed);
  const double dirtied = sample.dirty_bytes_per_second * to_seconds(sample.since_sync);
  verdict.stop_now = verdict.fits && sample.round >= 2 && sample.since_sync <= kExactFor &&
                     sample.remaining_bytes + dirtied <= allowed;
  return verdict;
}

}  // namespace godwit::migrate
