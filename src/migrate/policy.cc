#include "migrate/policy.hh"

#include <algorithm>
#include <array>

namespace godwit::migrate {
namespace {

// Of the bytes that fit on paper; the rest absorbs a link that slows down during the pause.
constexpr double kAllowedShare = 0.8;

double to_seconds(Nanoseconds duration) { return static_cast<double>(duration.count()) / 1e9; }

Nanoseconds fixed_cost(const MemorySample& sample, const PauseCosts& costs) {
  return costs.device_state_load + costs.commit_local +
         duration_cast<Nanoseconds>(sample.rtt * costs.commit_round_trips);
}

// What a pause has to wait for: memory through the encoder into the target's QEMU, and what the
// lanes carry of it. The slower decides.
struct Flow {
  double share;  // of a byte of memory that is dirty
  double backlog_bytes, in_flight_bytes, bytes_per_second;
  Nanoseconds rtt;

  // What still waits for its turn on the path. What is in flight takes no time of its own: the
  // round trips count for it.
  double waiting_bytes() const {
    const double path = bytes_per_second * to_seconds(rtt);
    return std::max(0.0, backlog_bytes - std::min(in_flight_bytes, path));
  }
  double seconds(double bytes) const { return bytes / bytes_per_second; }
};

// One of them twice where nothing is known of the lanes.
std::array<Flow, 2> flows(const MemorySample& sample) {
  const Flow memory{.share = 1,
                    .backlog_bytes = sample.backlog_bytes,
                    .in_flight_bytes = sample.in_flight_bytes,
                    .bytes_per_second = sample.delivered_bytes_per_second,
                    .rtt = sample.rtt};
  if (sample.lane_bytes_per_second <= 0) return {memory, memory};
  return {memory, Flow{.share = sample.lane_share,
                       .backlog_bytes = sample.lane_backlog_bytes,
                       .in_flight_bytes = sample.lane_in_flight_bytes,
                       .bytes_per_second = sample.lane_bytes_per_second,
                       .rtt = sample.rtt}};
}

// How fast memory that was changed moves.
double changed_bytes_per_second(const MemorySample& sample) {
  const auto [memory, lane] = flows(sample);
  return std::min(memory.bytes_per_second / memory.share, lane.bytes_per_second / lane.share);
}

Nanoseconds from_seconds(double value) {
  return Nanoseconds(static_cast<Nanoseconds::rep>(std::clamp(value, 0.0, 1e9) * 1e9));
}

bool dirties_too_much(const MemorySample& sample) {
  return sample.dirty_bytes_per_second > kDivergeShare * changed_bytes_per_second(sample);
}

// What of a flow fits into the pause.
double pause_holds(const Flow& flow, Nanoseconds left, const PauseCosts& costs) {
  return to_seconds(left) * flow.bytes_per_second * kAllowedShare - costs.device_state_bytes;
}

// Bytes of memory that can still move in the pause, on their way already or not.
double pause_holds(const MemorySample& sample, const PauseLimits& limits, const PauseCosts& costs) {
  const Nanoseconds left = limits.max_downtime - fixed_cost(sample, costs);
  if (left <= Nanoseconds(0)) return 0;
  const auto [memory, lane] = flows(sample);
  return std::min(pause_holds(memory, left, costs) / memory.share,
                  pause_holds(lane, left, costs) / lane.share);
}

}  // namespace

std::string_view to_text(OnDiverge on_diverge) {
  switch (on_diverge) {
    case OnDiverge::abort:
      return "abort";
    case OnDiverge::pause:
      return "pause";
    case OnDiverge::throttle:
      return "throttle";
    case OnDiverge::postcopy:
      return "postcopy";
  }
  return "?";
}

std::optional<OnDiverge> on_diverge(std::string_view text) {
  for (const OnDiverge each :
       {OnDiverge::abort, OnDiverge::pause, OnDiverge::throttle, OnDiverge::postcopy}) {
    if (to_text(each) == text) return each;
  }
  return std::nullopt;
}

Nanoseconds predicted_pause(const MemorySample& sample, double bytes, const PauseCosts& costs) {
  if (sample.delivered_bytes_per_second <= 0) return kMaxQemuDowntimeLimit;
  double longest = 0;
  for (const Flow& flow : flows(sample)) {
    const double moved = bytes * flow.share + flow.waiting_bytes() + costs.device_state_bytes;
    longest = std::max(longest, flow.seconds(moved));
  }
  return fixed_cost(sample, costs) + from_seconds(longest);
}

double allowed_bytes(const MemorySample& sample, const PauseLimits& limits,
                     const PauseCosts& costs) {
  const Nanoseconds left = limits.max_downtime - fixed_cost(sample, costs);
  if (left <= Nanoseconds(0)) return 0;
  const auto [memory, lane] = flows(sample);
  const auto allowed = [&](const Flow& flow) {
    return (pause_holds(flow, left, costs) - flow.waiting_bytes()) / flow.share;
  };
  return std::max(0.0, std::min(allowed(memory), allowed(lane)));
}

double least_waiting(const MemorySample& sample) {
  return std::clamp(sample.delivered_bytes_per_second * to_seconds(kWaitsAtLeast), kLeastWaits,
                    kMostWaits);
}

double most_backlog(const MemorySample& sample, const PauseLimits& limits,
                    const PauseCosts& costs) {
  const double rate = sample.delivered_bytes_per_second;
  const double most =
      std::max(kLeastBacklogBytes, rate * to_seconds(sample.rtt + kBacklogBeyondRtt));
  if (sample.round < 2) return most;
  const double path = rate * to_seconds(sample.rtt) + least_waiting(sample);
  return std::min(most, std::max(path, pause_holds(sample, limits, costs) / 2));
}

double most_memory_behind(const MemorySample& sample) {
  return std::max(kLeastMemoryBehind,
                  sample.delivered_bytes_per_second * to_seconds(sample.rtt + kMemoryBehind));
}

double most_postcopy_backlog(BitRate delivered, Nanoseconds rtt) {
  return delivered.bytes_per_second() * to_seconds(rtt) + kPostcopyWaits;
}

void StopJudge::set_limits(PauseLimits limits) {
  limits_ = limits;
  stalled_rounds_ = 0;
  counted_from_ = std::max<std::uint64_t>(round_, 1);
  sent_before_ = sent_;
  is_spent_ = false;
  floor_.reset();
}

void StopJudge::note_floor(Nanoseconds pause, Instant at) {
  if (!floor_ || pause < floor_->pause * (1 - kSlack)) {
    floor_ = {.pause = pause, .at = at, .rounds = 0};
  } else {
    ++floor_->rounds;
  }
}

bool StopJudge::is_at_floor(Instant now) const {
  return floor_ && floor_->rounds >= kFloorRounds &&
         now - floor_->at >= (limits_.pause_on_diverge ? kFloorBeforePause : kFloorBeforeAbort);
}

std::uint64_t StopJudge::most_stalled() const {
  return limits_.postcopy_on_diverge ? 1 : most_stalled_rounds(limits_.policy);
}

// A round stalls by what is dirty: what waits at the target passes, as QEMU's stream waits
// meanwhile.
void StopJudge::note_round(const MemorySample& sample) {
  sent_ = sample.sent_bytes;
  if (sample.round == round_) return;
  const bool first = round_ <= 1;
  const bool stalled = !first && sample.remaining_bytes > pause_holds(sample, limits_, costs_) &&
                       dirties_too_much(sample) &&
                       sample.remaining_bytes > kStallRatio * round_start_remaining_;
  stalled_rounds_ = stalled ? stalled_rounds_ + 1 : 0;
  round_ = sample.round;
  round_start_remaining_ = sample.remaining_bytes;
  const Nanoseconds pause = predicted_pause(sample, sample.remaining_bytes, costs_);
  history_.begin_round({.remaining_bytes = sample.remaining_bytes, .predicted_pause = pause});
  if (round_ >= 2) note_floor(pause, sample.at);
}

StopJudge::Verdict StopJudge::judge(const MemorySample& sample) {
  const double allowed = allowed_bytes(sample, limits_, costs_);
  note_round(sample);

  Verdict verdict;
  if (sample.delivered_bytes_per_second <= 0) return verdict;
  // At the end of this round the guest has dirtied again what it could in the time it takes.
  double round_seconds = 0;
  for (const Flow& flow : flows(sample)) {
    const double bytes = sample.remaining_bytes * flow.share + flow.backlog_bytes;
    round_seconds = std::max(round_seconds, flow.seconds(bytes));
  }
  const double next = sample.dirty_bytes_per_second * round_seconds;
  verdict.predicted_pause =
      predicted_pause(sample, std::min(sample.remaining_bytes, std::max(next, 0.0)), costs_);
  const double gain =
      std::max(0.1, 1.0 - sample.dirty_bytes_per_second / changed_bytes_per_second(sample));
  verdict.eta = from_seconds(round_seconds / gain);

  const Effort effort{.rounds = sample.round - std::min(sample.round, counted_from_),
                      .sent_bytes = sample.sent_bytes - sent_before_,
                      .memory_bytes = sample.memory_bytes,
                      .remaining_bytes = sample.remaining_bytes};
  is_spent_ = is_spent(limits_.policy, effort);
  const double dirty =
      sample.remaining_bytes + sample.dirty_bytes_per_second * to_seconds(sample.since_sync);
  const bool is_exact = sample.round >= 2 && sample.since_sync <= kExactFor;
  const bool is_low = is_exact && is_enough(limits_.policy, history_, effort);
  verdict.pause_now = predicted_pause(sample, dirty, costs_);
  verdict.fits =
      allowed > 0 && (sample.round >= 2 || sample.remaining_bytes <= kFirstRoundMultiple * allowed);
  verdict.stop_now = verdict.fits && is_low && dirty <= allowed;
  // A guest that dirties less than the link carries has a shorter pause ahead.
  const bool is_best = is_low && (is_spent_ || dirties_too_much(sample));
  verdict.best_now = is_best || limits_.policy != StopPolicy::smart;
  const bool has_tried =
      is_spent_ || (is_best && limits_.policy == StopPolicy::smart && limits_.pause_on_diverge &&
                    history_.flat_rounds() > kSmartWindow);
  verdict.diverges = stalled_rounds_ >= most_stalled() ||
                     (is_low && dirty > allowed && (has_tried || is_at_floor(sample.at)));
  return verdict;
}

}  // namespace godwit::migrate
