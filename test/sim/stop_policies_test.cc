#include <gtest/gtest.h>

#include <map>

#include "precopy.hh"

namespace godwit::sim {
namespace {

using migrate::StopPolicy;
using End = PlayedMove::End;

constexpr Nanoseconds kLimit = milliseconds(300);
// Of the pause: what the link's swing and the delay until STOP make of it.
constexpr double kMostError = 0.15;

DirtyTrace trace(const std::string& name) {
  auto read = read_dirty_trace(std::string(GODWIT_TRACES) + "/" + name + ".dirty");
  if (!read) throw std::runtime_error(read.error().text);
  return *std::move(read);
}

PlayedMove played(const std::string& name, StopPolicy policy, bool pause_on_diverge = true) {
  return play(trace(name), {},
              {.max_downtime = kLimit, .policy = policy, .pause_on_diverge = pause_on_diverge});
}

TEST(DirtyTraces, APageIsCountedOnceHoweverOftenItIsWritten) {
  const auto trace = parse_dirty_trace("t", "memory 100\ngroup hot 10 # few\nat 0ms hot 1000\n");
  ASSERT_TRUE(trace) << trace.error().text;
  DirtyLog log(*trace);
  log.run(milliseconds(1));
  EXPECT_NEAR(log.pages(), 0.95, 0.01);
  log.run(seconds(10));
  EXPECT_NEAR(log.sync(), 10, 1e-6);
  EXPECT_EQ(log.pages(), 0);
}

TEST(DirtyTraces, PhasesRepeat) {
  const auto trace =
      parse_dirty_trace("t", "memory 100\ngroup hot 100\nat 0ms hot 1\nat 1s hot 5\nrepeat 3s\n");
  ASSERT_TRUE(trace);
  EXPECT_EQ(trace->phase_at(milliseconds(999)).writes_per_second[0], 1);
  EXPECT_EQ(trace->phase_at(milliseconds(2999)).writes_per_second[0], 5);
  EXPECT_EQ(trace->phase_at(milliseconds(3500)).writes_per_second[0], 1);
}

TEST(DirtyTraces, MistakesNameTheirLine) {
  const auto error = [](std::string_view text) {
    const auto trace = parse_dirty_trace("t", text);
    return trace ? "" : trace.error().text;
  };
  EXPECT_EQ(error("memory 9\ngroup a 5\nat 0ms b 5\n"),
            "trace t, line 3: there is no group 'b' yet");
  EXPECT_NE(error("memory 9\ngroup a 50\nat 0ms a 5\n"), "");
  EXPECT_NE(error("memory 9\ngroup a 5\nat 1s a 5\n"), "");
  EXPECT_NE(error("memory many\n"), "");
  EXPECT_NE(error(""), "");
}

TEST(StopPolicies, AConvergentGuestIsPausedWithinTheLimitByAll) {
  for (const auto* name : {"steady", "zipf", "bursty"}) {
    for (const auto policy : {StopPolicy::downtime, StopPolicy::smart, StopPolicy::stock}) {
      const auto move = played(name, policy);
      EXPECT_EQ(move.end, End::fits) << name << " " << migrate::to_text(policy);
      EXPECT_LE(move.pause, kLimit) << name << " " << migrate::to_text(policy);
    }
  }
}

TEST(StopPolicies, SmartPausesNoLongerThanDowntime) {
  for (const auto* name : {"steady", "zipf", "bursty", "phased"}) {
    EXPECT_LE(played(name, StopPolicy::smart).pause, played(name, StopPolicy::downtime).pause)
        << name;
  }
}

TEST(StopPolicies, SmartSendsLessThanStockWhereRoundsDoNotShrink) {
  for (const auto* name : {"bursty", "diverging"}) {
    EXPECT_LT(played(name, StopPolicy::smart).sent_bytes,
              played(name, StopPolicy::stock).sent_bytes)
        << name;
  }
}

TEST(StopPolicies, DowntimeSendsLeast) {
  for (const auto* name : {"steady", "zipf", "bursty"}) {
    const double least = played(name, StopPolicy::downtime).sent_bytes;
    EXPECT_LE(least, played(name, StopPolicy::smart).sent_bytes) << name;
    EXPECT_LE(least, played(name, StopPolicy::stock).sent_bytes) << name;
  }
}

TEST(StopPolicies, WhatDivergesIsPausedOnlyIfThatIsAllowed) {
  for (const auto policy : {StopPolicy::downtime, StopPolicy::smart, StopPolicy::stock}) {
    EXPECT_EQ(played("diverging", policy, false).end, End::diverged) << migrate::to_text(policy);
    EXPECT_EQ(played("diverging", policy, true).end, End::over) << migrate::to_text(policy);
  }
}

TEST(StopPolicies, PausesArePredicted) {
  for (const auto* name : {"steady", "zipf", "bursty", "phased", "diverging", "recorded"}) {
    for (const auto policy : {StopPolicy::downtime, StopPolicy::smart, StopPolicy::stock}) {
      const auto move = played(name, policy);
      EXPECT_NEAR(to_ms(move.predicted_pause), to_ms(move.pause), kMostError * to_ms(move.pause))
          << name << " " << migrate::to_text(policy);
    }
  }
}

}  // namespace
}  // namespace godwit::sim
