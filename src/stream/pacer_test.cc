#include "stream/pacer.hh"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>

namespace godwit::stream {
namespace {

constexpr Nanoseconds kStep = milliseconds(5);

// A bottleneck with a queue; the sender sends at the lid, and sees what was delivered one round
// trip later.
struct Path {
  double link;  // bit/s
  Nanoseconds rtt;
  double queue = 0, worst_queue = 0;
  Instant now{};
  std::deque<std::pair<Instant, double>> seen{};

  void step(Pacer& pacer) {
    const double step_seconds = static_cast<double>(kStep.count()) / 1e9;
    queue += static_cast<double>(pacer.rate().bits_per_second) * step_seconds;
    const double out = std::min(queue, link * step_seconds);
    queue -= out;
    worst_queue = std::max(worst_queue, queue);
    seen.emplace_back(now + rtt, out / step_seconds);
    while (!seen.empty() && seen.front().first <= now) {
      pacer.update(
          {.at = now, .rtt = rtt, .delivered = {static_cast<std::uint64_t>(seen.front().second)}});
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
      EXPECT_LT(path.worst_queue, mbit * 1e6 * std::max(rtt_ms, 20) / 1000);
      EXPECT_NEAR(
          static_cast<double>(pacer.rate().bits_per_second),
          std::max(Pacer::kDrain * mbit * 1e6, static_cast<double>(Pacer::kStart.bits_per_second)),
          0.01 * mbit * 1e6);
      EXPECT_LE(path.now.time_since_epoch(), milliseconds(rtt_ms) * 25);
    }
  }
}

TEST(Pacer, AnIdleSenderLearnsNothing) {
  Pacer pacer;
  Instant now{};
  for (int i = 0; i < 1000; ++i) {
    now += milliseconds(50);
    pacer.update({.at = now, .rtt = milliseconds(40), .delivered = {1'000'000}});
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
