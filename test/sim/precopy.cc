#include "precopy.hh"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace godwit::sim {
namespace {

using End = PlayedMove::End;

constexpr Nanoseconds kStep = milliseconds(2);
constexpr Nanoseconds kPoll = milliseconds(50);
constexpr Nanoseconds kStopDelay = milliseconds(4);     // from the sample to STOP
constexpr Nanoseconds kRateWindow = milliseconds(500);  // of the estimate of what is delivered
constexpr double kSwingSeconds = 7;
constexpr Nanoseconds kPatience = std::chrono::minutes(15);

double to_seconds(Nanoseconds duration) { return static_cast<double>(duration.count()) / 1e9; }

class Precopy final {
 public:
  Precopy(const DirtyTrace& trace, const PlayedLink& link, migrate::PauseLimits limits)
      : link_(link),
        memory_bytes_(trace.memory_pages * kPageBytes),
        log_(trace),
        judge_(limits),
        remaining_(memory_bytes_),
        estimate_(link.rate.bytes_per_second()) {}

  PlayedMove play() {
    while (now_ < kPatience && !is_over_) {
      log_.run(kStep);
      move(kStep);
      if (now_ - synced_ == kStep || now_ - judged_ >= kPoll) judge();
      if (!is_over_ && remaining_ <= 0) begin_round();
    }
    result_.rounds = round_;
    result_.sent_bytes = sent_;
    result_.total = now_;
    return result_;
  }

 private:
  double rate() const {
    const double turn = 2 * std::numbers::pi * to_seconds(now_) / kSwingSeconds;
    return link_.rate.bytes_per_second() * (1 + link_.swing * std::sin(turn));
  }

  // QEMU writes what the backlog has room for; the target acknowledges a round trip later.
  void move(Nanoseconds step) {
    const double taken = std::clamp(most_backlog_ - backlog_, 0.0, std::max(remaining_, 0.0));
    remaining_ -= taken;
    backlog_ += taken;
    sent_ += taken;
    const double passed = to_seconds(step);
    const double in_flight = backlog_ * passed / std::max(to_seconds(link_.rtt), passed);
    const double acknowledged = std::min({backlog_, rate() * passed, in_flight});
    backlog_ -= acknowledged;
    const bool is_full = in_flight >= rate() * passed;  // else it says nothing about the path
    if (is_full) {
      const double weight = passed / to_seconds(kRateWindow);
      estimate_ += (rate() - estimate_) * weight;
    }
    now_ += step;
  }

  void begin_round() {
    const double dirty = log_.sync() * kPageBytes;
    dirty_rate_ = dirty / std::max(to_seconds(now_ - synced_), to_seconds(kStep));
    remaining_ = std::max(dirty, 1.0);
    synced_ = now_;
    ++round_;
  }

  void judge() {
    judged_ = now_;
    const migrate::MemorySample sample{.at = Instant(now_),
                                       .round = round_,
                                       .remaining_bytes = remaining_,
                                       .since_sync = now_ - synced_,
                                       .dirty_bytes_per_second = dirty_rate_,
                                       .backlog_bytes = backlog_,
                                       .delivered_bytes_per_second = estimate_,
                                       .rtt = link_.rtt,
                                       .sent_bytes = sent_,
                                       .memory_bytes = memory_bytes_};
    const auto verdict = judge_.judge(sample);
    most_backlog_ = migrate::most_backlog(sample, judge_.limits(), migrate::PauseCosts{});
    has_diverged_ |= verdict.diverges;
    if (has_diverged_ && !judge_.limits().pause_on_diverge) return end(End::diverged);
    if (verdict.stop_now) return pause(End::fits, verdict.pause_now);
    if (has_diverged_ && verdict.best_now) pause(End::over, verdict.pause_now);
  }

  void pause(End how, Nanoseconds predicted) {
    result_.predicted_pause = predicted;
    log_.run(kStopDelay);
    move(kStopDelay);
    const Nanoseconds stopped = now_;
    const migrate::PauseCosts costs;
    remaining_ += log_.sync() * kPageBytes + costs.device_state_bytes;
    // The last byte's acknowledgement is one of the commit's round trips.
    for (double left = remaining_ + backlog_; left > 0; now_ += kStep) {
      left -= rate() * to_seconds(kStep);
    }
    sent_ += remaining_;
    result_.pause = now_ - stopped + costs.device_state_load + costs.commit_local +
                    duration_cast<Nanoseconds>(link_.rtt * costs.commit_round_trips);
    now_ = stopped + result_.pause;
    end(how);
  }

  void end(End how) {
    result_.end = how;
    is_over_ = true;
  }

  PlayedLink link_;
  double memory_bytes_;
  DirtyLog log_;
  migrate::StopJudge judge_;
  Nanoseconds now_{}, synced_{}, judged_{};
  std::uint64_t round_ = 1;
  double remaining_, backlog_ = 0, sent_ = 0, dirty_rate_ = 0;
  double most_backlog_ = migrate::kLeastBacklogBytes;
  double estimate_;
  bool has_diverged_ = false, is_over_ = false;
  PlayedMove result_;
};

}  // namespace

std::string_view to_text(End end) {
  switch (end) {
    case End::fits:
      return "fits";
    case End::over:
      return "over the limit";
    case End::diverged:
      return "diverged";
    case End::endless:
      return "endless";
  }
  return "?";
}

PlayedMove play(const DirtyTrace& trace, const PlayedLink& link, migrate::PauseLimits limits) {
  return Precopy(trace, link, limits).play();
}

std::string stop_policy_table(const std::vector<DirtyTrace>& traces, const PlayedLink& link,
                              Nanoseconds max_downtime) {
  using godwit::to_text;  // durations: argument-dependent lookup does not reach it
  using migrate::StopPolicy;
  std::string text = fmt::format(
      "{}, RTT {}, the pause may take {}\n{:<14} {:<9} {:>6} {:>9} "
      "{:>8} {:>9} {:>9} {:>9}\n",
      to_text(link.rate), to_text(link.rtt), to_text(max_downtime), "trace", "policy", "rounds",
      "MB", "total", "pause", "predicted", "error");
  for (const DirtyTrace& trace : traces) {
    for (const auto policy : {StopPolicy::downtime, StopPolicy::smart, StopPolicy::stock}) {
      const auto move = play(
          trace, link, {.max_downtime = max_downtime, .policy = policy, .pause_on_diverge = true});
      text += fmt::format(
          "{:<14} {:<9} {:>6} {:>9.1f} {:>6.1f} s {:>6.0f} ms {:>6.0f} ms {:>+6.0f} "
          "ms  {}\n",
          trace.name, migrate::to_text(policy), move.rounds, move.sent_bytes / 1e6,
          to_seconds(move.total), to_ms(move.pause), to_ms(move.predicted_pause),
          to_ms(move.pause - move.predicted_pause), to_text(move.end));
    }
  }
  return text;
}

}  // namespace godwit::sim
