#include "stream/pacer.hh"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>

namespace godwit::stream {
namespace {

constexpr Nanoseconds kStep = milliseconds(5);
constexpr int kAcksPerStep = 4;  // at least

// A bottleneck with a queue; the sender sends at the lid or at what its congestion control wants,
// and sees what was delivered, and how long it queued, one round trip later.
struct Path {
  double link;  // bit/s
  Nanoseconds rtt;
  Nanoseconds noise{};
  bool starting_up = false;
  bool waiting = true;
  double wanted = 1e12;
  double queue = 0, worst_queue = 0;
  Instant now{};
  struct Seen {
    Instant at;
    double delivered;
    Nanoseconds waited;
  };
  std::deque<Seen> seen{};
  Nanoseconds smoothed{rtt + noise};
  double acknowledged = 0;  // bits

  BitRate mean_since(Instant then, double acknowledged_then) const {
    const double took = static_cast<double>((now - then).count()) / 1e9;
    return {static_cast<std::uint64_t>((acknowledged - acknowledged_then) / took)};
  }

  void step(Pacer& pacer) {
    const double step_seconds = static_cast<double>(kStep.count()) / 1e9;
    queue += std::min(wanted, static_cast<double>(pacer.rate().bits_per_second)) * step_seconds;
    const double out = std::min(queue, link * step_seconds);
    queue -= out;
    worst_queue = std::max(worst_queue, queue);
    const Nanoseconds waited(static_cast<std::int64_t>(queue / link * 1e9));
    seen.push_back({.at = now + rtt + waited, .delivered = out / step_seconds, .waited = waited});
    while (!seen.empty() && seen.front().at <= now) {
      acknowledged += seen.front().delivered * step_seconds;
      smoothed += (rtt + noise + seen.front().waited - smoothed) / 8 * kAcksPerStep;
      pacer.update({.at = now,
                    .rtt = rtt,
                    .smoothed_rtt = smoothed,
                    .delivered = {static_cast<std::uint64_t>(seen.front().delivered)},
                    .acknowledged = {static_cast<std::uint64_t>(acknowledged / 8)},
                    .starting_up = starting_up,
                    .waiting = waiting});
      seen.pop_front();
    }
    now += kStep;
  }
};

TEST(Pacer, TheRampFindsTheLinkAndFillsLessThanOneBdp) {
  for (const int rtt_ms : {10, 40, 100, 200}) {
    for (const double mbit : {100.0, 400.0, 1000.0}) {
      SCOPED_TRACE(fmt::format("{} ms, {} Mbit/s", rtt_ms, mbit));
      Path path{.link = mbit * 1e6, .rtt = milliseconds(rtt_ms)};
      Pacer pacer;
      int steps = 0;
      while (pacer.ramping() && ++steps < 4000) path.step(pacer);
      EXPECT_FALSE(pacer.ramping());
      EXPECT_LT(path.worst_queue, 0.85 * mbit * 1e6 * std::max(rtt_ms, 20) / 1000);
      EXPECT_NEAR(
          static_cast<double>(pacer.rate().bits_per_second),
          std::max(Pacer::kDrain * mbit * 1e6, static_cast<double>(Pacer::kStart.bits_per_second)),
          0.01 * mbit * 1e6);
      EXPECT_LE(path.now.time_since_epoch(), milliseconds(rtt_ms) * 15);
    }
  }
}

TEST(Pacer, NoiseInTheRoundTripsCostsTimeAndNotTheRate) {
  Pacer pacer;
  // BBR wants what the link carries; the hosts are late by 15 ms, always.
  Path path{.link = 400e6, .rtt = milliseconds(40), .noise = milliseconds(15), .wanted = 400e6};
  for (int i = 0; i < 200; ++i) path.step(pacer);  // 1 s
  EXPECT_FALSE(pacer.ramping());
  const Instant then = path.now;
  const double acknowledged = path.acknowledged;
  for (int i = 0; i < 4000; ++i) path.step(pacer);  // 20 s
  EXPECT_GT(path.mean_since(then, acknowledged).bits_per_second, 380'000'000U);
}

TEST(Pacer, AStandingQueueIsRelieved) {
  Pacer pacer;
  // BBR believes in 4 % more than there is: 2 ms of queue each round trip, a BDP within a second.
  Path path{.link = 400e6, .rtt = milliseconds(40), .wanted = 416e6};
  for (int i = 0; i < 200; ++i) path.step(pacer);
  path.worst_queue = 0;
  const Instant then = path.now;
  const double acknowledged = path.acknowledged;
  for (int i = 0; i < 4000; ++i) path.step(pacer);  // 20 s
  EXPECT_LT(path.worst_queue, 0.9 * 400e6 * 0.040);
  EXPECT_GT(path.mean_since(then, acknowledged).bits_per_second, 390'000'000U);
}

TEST(Pacer, WhoHasNothingToSendOnALoadedHostIsNotRelieved) {
  Pacer pacer;
  Path path{.link = 400e6, .rtt = milliseconds(40)};
  for (int i = 0; i < 200; ++i) path.step(pacer);
  // Some packets now and then, by a host that answers late.
  path.noise = milliseconds(15);
  path.wanted = 200e3;
  path.waiting = false;
  for (int i = 0; i < 800; ++i) {  // 4 s
    path.step(pacer);
    EXPECT_GE(pacer.rate(), Pacer::kStart);
  }
}

TEST(Pacer, LeavesNoRoomWhileBbrStartsUp) {
  Pacer pacer;
  Path path{.link = 400e6, .rtt = milliseconds(40), .starting_up = true};
  for (int i = 0; i < 200; ++i) path.step(pacer);  // 1 s
  EXPECT_NEAR(static_cast<double>(pacer.rate().bits_per_second), Pacer::kDrain * 400e6, 1e6);
  path.starting_up = false;
  path.step(pacer);
  EXPECT_NEAR(static_cast<double>(pacer.rate().bits_per_second), Pacer::kHeadroom * 400e6, 1e6);
}

TEST(Pacer, AnIdleSenderLearnsNothing) {
  Pacer pacer;
  Instant now{};
  for (int i = 0; i < 1000; ++i) {
    now += milliseconds(50);
    pacer.update({.at = now,
                  .rtt = milliseconds(40),
                  .smoothed_rtt = milliseconds(40),
                  .delivered = {1'000'000},
                  .acknowledged = {}});
  }
  EXPECT_TRUE(pacer.ramping());
  EXPECT_EQ(pacer.rate(), Pacer::kStart);
}

TEST(Pacer, ForgetsAPathThatGotSlower) {
  Pacer pacer;
  Path path{.link = 400e6, .rtt = milliseconds(40)};
  while (pacer.ramping()) path.step(pacer);
  path.link = 100e6;
  for (int i = 0; i < 2400; ++i) path.step(pacer);  // 12 s
  EXPECT_LE(pacer.rate().bits_per_second, 130'000'000u);
}

}  // namespace
}  // namespace godwit::stream
