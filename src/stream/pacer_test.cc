#include "stream/pacer.hh"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>

namespace godwit::stream {
namespace {

constexpr Nanoseconds kStep = milliseconds(5);

// A bottleneck with a drop-tail queue and a fixed delay; the sender sends at the paced rate, and
// sees queueing and delivery one round trip later.
class Path {
 public:
  Path(double bits_per_second, Nanoseconds rtt, double queue_bits)
      : link_(bits_per_second), rtt_(rtt), limit_(queue_bits) {}

  void run(Pacer& pacer, Nanoseconds duration) {
    for (const Instant end = now_ + duration; now_ < end; now_ += kStep) step(pacer);
  }
  double delivered = 0, dropped = 0, worst_queue = 0;
  double link_;

 private:
  void step(Pacer& pacer) {
    const double seconds_per_step = static_cast<double>(kStep.count()) / 1e9;
    queue_ += static_cast<double>(pacer.rate().bits_per_second) * seconds_per_step;
    const double out = std::min(queue_, link_ * seconds_per_step);
    queue_ -= out;
    delivered += out;
    if (queue_ > limit_) dropped += queue_ - limit_, queue_ = limit_;
    worst_queue = std::max(worst_queue, queue_);
    const Nanoseconds waiting(static_cast<Nanoseconds::rep>(queue_ / link_ * 1e9));
    seen_.push_back({now_ + rtt_ + waiting, waiting, out / seconds_per_step});
    while (!seen_.empty() && seen_.front().at <= now_) {
      pacer.update({.at = now_,
                    .rtt = rtt_ + seen_.front().waiting,
                    .min_rtt = rtt_,
                    .delivered = {static_cast<std::uint64_t>(seen_.front().rate)}});
      seen_.pop_front();
    }
  }

  struct Seen {
    Instant at;
    Nanoseconds waiting;
    double rate;
  };
  Nanoseconds rtt_;
  double limit_, queue_ = 0;
  Instant now_{};
  std::deque<Seen> seen_;
};

TEST(Pacer, FillsTheLinkWithoutOverflowingOneBdp) {
  for (const int rtt_ms : {5, 40, 100, 200}) {
    for (const double mbit : {20.0, 100.0, 400.0, 1000.0}) {
      SCOPED_TRACE(fmt::format("{} ms, {} Mbit/s", rtt_ms, mbit));
      const Nanoseconds rtt = milliseconds(rtt_ms);
      Path path(mbit * 1e6, rtt, std::max(mbit * 1e6 * rtt_ms / 1000, mbit * 1e6 * 0.04));
      Pacer pacer;
      if (mbit * 1e6 >= double(Pacer::kStart.bits_per_second)) {
        path.run(pacer, rtt * 12);
        EXPECT_EQ(path.dropped, 0);
      }
      path.run(pacer, seconds(20));
      const double before = path.delivered;
      path.run(pacer, seconds(20));
      EXPECT_GE(path.delivered - before, 0.93 * mbit * 1e6 * 20);
    }
  }
}

TEST(Pacer, FollowsALinkThatGetsSlowerAndFaster) {
  Path path(400e6, milliseconds(40), 400e6 * 0.04);
  Pacer pacer;
  path.run(pacer, seconds(5));
  path.link_ = 100e6;
  path.run(pacer, seconds(5));
  EXPECT_LT(pacer.rate().bits_per_second, 115'000'000u);
  path.link_ = 400e6;
  path.run(pacer, seconds(30));
  EXPECT_GT(pacer.rate().bits_per_second, 360'000'000u);
}

TEST(Pacer, AnIdleSenderDoesNotRampForEver) {
  Pacer pacer;
  Instant now{};
  for (int i = 0; i < 1000; ++i) {
    now += milliseconds(50);
    pacer.update({.at = now, .rtt = milliseconds(40), .min_rtt = milliseconds(40),
                  .delivered = {1'000'000}});
  }
  EXPECT_LE(pacer.rate().bits_per_second, 2 * Pacer::kStart.bits_per_second);
}

}  // namespace
}  // namespace godwit::stream
