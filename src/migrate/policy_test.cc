#include "migrate/policy.hh"

#include <gtest/gtest.h>

namespace godwit::migrate {
namespace {

constexpr double kMega = 1e6;

MemorySample sample(std::uint64_t round, double remaining, double dirty) {
  return {.at = {},
          .round = round,
          .remaining_bytes = remaining,
          .dirty_bytes_per_second = dirty,
          .backlog_bytes = 0,
          .delivered_bytes_per_second = 50 * kMega,
          .rtt = milliseconds(40)};
}

TEST(Policy, AllowedBytesLeaveRoomForTheCommit) {
  const double allowed = allowed_bytes(sample(1, 0, 0), {}, {});
  // 300 ms - 15 - 15 - 60 = 210 ms at 50 MB/s, 0.8 of it, less the device state.
  EXPECT_NEAR(allowed, 0.210 * 50 * kMega * 0.8 - 256 * 1024, 1);
  EXPECT_LE(predicted_pause(sample(1, 0, 0), allowed, {}), milliseconds(300));
}

TEST(Policy, NothingIsAllowedWhenRoundTripsAloneExceedTheLimit) {
  auto far = sample(1, 0, 0);
  far.rtt = milliseconds(250);
  EXPECT_EQ(allowed_bytes(far, {}, {}), 0);
  EXPECT_FALSE(StopJudge({}).judge(far).fits);
}

TEST(Policy, TheBacklogIsBoundedByThePathAndThenByThePause) {
  const double path = 0.040 * 50 * kMega;
  EXPECT_NEAR(most_backlog(sample(1, 0, 0), {}, {}), 0.120 * 50 * kMega, 1);
  const double allowed = allowed_bytes(sample(2, 0, 0), {}, {});
  EXPECT_NEAR(most_backlog(sample(2, 0, 0), {}, {}), allowed / 2, 1);
  // Whatever the limit of the pause, the path stays full.
  const PauseLimits short_pause{.max_downtime = milliseconds(1)};
  EXPECT_GT(most_backlog(sample(2, 0, 0), short_pause, {}), path);
  auto unknown = sample(1, 0, 0);
  unknown.delivered_bytes_per_second = 0;
  EXPECT_EQ(most_backlog(unknown, {}, {}), kLeastBacklogBytes);
}

TEST(Policy, WhatIsInFlightDoesNotWait) {
  auto busy = sample(2, 0, 0);
  busy.backlog_bytes = 3 * kMega;
  busy.in_flight_bytes = 3 * kMega;  // 2 MB fit the path; the rest queues in it
  auto waiting = sample(2, 0, 0);
  waiting.backlog_bytes = 1 * kMega;
  EXPECT_EQ(predicted_pause(busy, 0, {}), predicted_pause(waiting, 0, {}));
  EXPECT_EQ(allowed_bytes(busy, {}, {}), allowed_bytes(waiting, {}, {}));
  busy.in_flight_bytes = 0;
  EXPECT_EQ(allowed_bytes(busy, {}, {}), allowed_bytes(waiting, {}, {}) - 2 * kMega);
}

// Pages that the target knows came at 500 MB/s; what the guest changes crosses a lane of 10.
TEST(Policy, TheSlowerOfMemoryAndLaneDecides) {
  auto thin = sample(2, 1 * kMega, 0);
  thin.delivered_bytes_per_second = 500 * kMega;
  EXPECT_LT(predicted_pause(thin, 1 * kMega, {}), milliseconds(100));
  thin.lane_bytes_per_second = 10 * kMega;
  thin.lane_share = 0.5;
  // 90 ms, and 0.76 MB with the device state.
  EXPECT_EQ(duration_cast<milliseconds>(predicted_pause(thin, 1 * kMega, {})), milliseconds(166));
  // 210 ms at 10 MB/s, 0.8 of it, less the device state, of which half a byte is one of memory.
  EXPECT_NEAR(allowed_bytes(thin, {}, {}), 2 * (0.210 * 10 * kMega * 0.8 - 256 * 1024), 1);
  thin.lane_backlog_bytes = 1 * kMega;
  EXPECT_NEAR(allowed_bytes(thin, {}, {}), 2 * (0.210 * 10 * kMega * 0.8 - 256 * 1024 - kMega), 1);
  EXPECT_EQ(most_memory_behind(thin), 0.140 * 500 * kMega);
}

// 1 MB is in flight at 100 Mbit/s and 80 ms: a quiet guest's move must still fit.
TEST(Policy, AThinLongPathLeavesRoomForAQuietGuest) {
  auto thin = sample(2, 0, 0);
  thin.delivered_bytes_per_second = 12.5 * kMega;
  thin.rtt = milliseconds(80);
  const double most = most_backlog(thin, {}, {});
  thin.backlog_bytes = most;
  thin.in_flight_bytes = 1 * kMega;
  EXPECT_GT(most, 1 * kMega);  // the path stays full
  EXPECT_GT(allowed_bytes(thin, {}, {}), 0.5 * kMega);
}

TEST(Policy, StopsOnAnExactSampleThatFits) {
  const double allowed = allowed_bytes(sample(2, 0, 0), {}, {});
  const auto stops = [](double remaining, double dirty, Nanoseconds since_sync) {
    auto exact = sample(2, remaining, dirty);
    exact.since_sync = since_sync;
    return StopJudge({}).judge(exact).stop_now;
  };
  EXPECT_TRUE(stops(0.9 * allowed, 0, milliseconds(2)));
  EXPECT_FALSE(stops(1.1 * allowed, 0, milliseconds(2)));
  EXPECT_FALSE(stops(0.9 * allowed, 0, kExactFor + milliseconds(1)))
      << "an old sample tells little";
  EXPECT_FALSE(stops(0.9 * allowed, 10 * allowed, milliseconds(20))) << "dirtied since the sync";
}

TEST(Policy, ShrinkingRoundsConverge) {
  StopJudge policy({});
  for (std::uint64_t round = 1; round < 8; ++round) {
    EXPECT_FALSE(
        policy.judge(sample(round, 200 * kMega / double(1u << round), 20 * kMega)).diverges);
  }
}

TEST(Policy, RoundsThatDoNotShrinkDiverge) {
  StopJudge policy({});
  bool diverges = false;
  for (std::uint64_t round = 1; round < 8; ++round) {
    diverges = policy.judge(sample(round, 64 * kMega, 100 * kMega)).diverges;
  }
  EXPECT_TRUE(diverges);
  policy.set_limits({.max_downtime = seconds(3)});
  EXPECT_FALSE(policy.judge(sample(9, 64 * kMega, 100 * kMega)).diverges);
}

TEST(Policy, ToPostcopyOneRoundThatDoesNotShrinkIsEnough) {
  for (const auto& [limits, rounds] :
       {std::pair{PauseLimits{}, 5U}, std::pair{PauseLimits{.postcopy_on_diverge = true}, 3U}}) {
    StopJudge policy(limits);
    std::uint64_t round = 1;
    while (!policy.judge(sample(round, 64 * kMega, 100 * kMega)).diverges && round < 9) ++round;
    EXPECT_EQ(round, rounds);
  }
}

// After a run of zero pages, which its QEMU is slow to take and ours quick to say.
TEST(Policy, ATargetThatIsBehindIsNoDivergence) {
  StopJudge policy({});
  for (std::uint64_t round = 1; round < 20; ++round) {
    auto behind = sample(round, 0.4 * kMega, 100 * kMega);
    behind.backlog_bytes = 100 * kMega;
    const auto verdict = policy.judge(behind);
    EXPECT_FALSE(verdict.diverges);
    EXPECT_FALSE(verdict.stop_now);
  }
}

// Judges rounds that begin with these bytes, each right after its sync, until the guest stops.
int rounds_until_stop(StopJudge judge, const std::vector<double>& remaining) {
  for (std::size_t i = 0; i < remaining.size(); ++i) {
    auto exact = sample(i + 1, remaining[i], 0);
    exact.since_sync = milliseconds(1);
    exact.memory_bytes = 1e9;
    if (judge.judge(exact).stop_now) return static_cast<int>(i) + 1;
  }
  return 0;
}

TEST(Policy, SmartGoesOnWhileThePauseShrinksAndStopsWhereItIsLow) {
  const std::vector<double> rounds = {500 * kMega, 7 * kMega,   4 * kMega,
                                      1 * kMega,   1.5 * kMega, 0.9 * kMega};
  EXPECT_EQ(rounds_until_stop(StopJudge({}), rounds), 2);
  EXPECT_EQ(rounds_until_stop(StopJudge({.policy = StopPolicy::smart}), rounds), 6);
}

TEST(Policy, NoPolicyStopsAGuestOverTheLimit) {
  for (const auto policy : {StopPolicy::downtime, StopPolicy::smart, StopPolicy::stock}) {
    StopJudge judge({.policy = policy});
    bool diverges = false;
    for (std::uint64_t round = 1; round < 60; ++round) {
      auto exact = sample(round, 64 * kMega, 20 * kMega);
      exact.since_sync = milliseconds(1);
      exact.sent_bytes = 64 * kMega * static_cast<double>(round);
      exact.memory_bytes = 1e9;
      const auto verdict = judge.judge(exact);
      EXPECT_FALSE(verdict.stop_now);
      diverges |= verdict.diverges;
    }
    // It dirties too little to be called diverging; but a policy with bounded rounds is at its end.
    EXPECT_EQ(diverges, policy != StopPolicy::downtime) << to_text(policy);
  }
}

// What the guest dirties is little; a busy host's device state and commit alone are over the limit.
TEST(Policy, APauseThatNoRoundShortensDiverges) {
  // Until when it goes round after round; seconds(40) if it goes on.
  const auto gives_up = [](bool pauses, double shrinks, Nanoseconds round_takes) {
    StopJudge judge({.max_downtime = milliseconds(95), .pause_on_diverge = pauses});
    Instant now{};
    double remaining = 1 * kMega;
    for (std::uint64_t round = 1; now < Instant(seconds(40)); ++round) {
      auto exact = sample(round, remaining, 1 * kMega);
      exact.at = now;
      exact.since_sync = milliseconds(1);
      const auto verdict = judge.judge(exact);
      EXPECT_FALSE(verdict.stop_now);
      if (verdict.diverges) break;
      now += round_takes;
      remaining *= shrinks;
    }
    return now.time_since_epoch();
  };
  const Nanoseconds fast = milliseconds(200), slow = seconds(1);
  EXPECT_EQ(gives_up(true, 1, fast), fast + kFloorBeforePause);
  EXPECT_EQ(gives_up(false, 1, fast), fast + kFloorBeforeAbort);
  EXPECT_EQ(gives_up(true, 1, slow), slow + kFloorRounds * slow);
  EXPECT_GT(gives_up(true, 0.7, fast), fast + kFloorBeforePause) << "some rounds shortened it";
}

TEST(Policy, AMoveThatWasHeldGetsNewRounds) {
  StopJudge judge({.policy = StopPolicy::smart});
  const auto verdict = [&](std::uint64_t round) {
    auto exact = sample(round, 64 * kMega, 20 * kMega);
    exact.since_sync = milliseconds(1);
    return judge.judge(exact);
  };
  for (std::uint64_t round = 1; round < 100; ++round) (void)verdict(round);
  EXPECT_TRUE(verdict(100).diverges);
  judge.renew();
  EXPECT_FALSE(verdict(101).diverges);
}

}  // namespace
}  // namespace godwit::migrate
