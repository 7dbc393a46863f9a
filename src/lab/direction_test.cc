#include "lab/direction.hh"

#include <gtest/gtest.h>

#include "lab/delay_error.hh"
#include "os/clock.hh"

namespace godwit::lab {
namespace {

using std::chrono::microseconds;

Bytes frame_of(std::size_t size, std::uint8_t protocol = 17) {
  Bytes frame(size);
  to_big_endian<std::uint16_t>(0x0800, frame.data() + 12);
  frame[14] = std::byte{0x45};
  frame[23] = std::byte{protocol};
  return frame;
}

LinkQuality quality_of(std::uint64_t mbit, Nanoseconds delay, std::uint64_t queue) {
  LinkQuality quality;
  if (mbit > 0) quality.rate = BitRate{mbit * 1'000'000};
  quality.delay = delay;
  quality.queue = {.time = std::nullopt, .size = {queue}};
  return quality;
}

std::vector<Nanoseconds> drain(Direction& direction, Instant from, Instant until) {
  std::vector<Nanoseconds> times;
  while (const auto due = direction.next_release()) {
    if (*due > until) break;
    while (direction.release(*due)) times.push_back(*due - from);
  }
  return times;
}

TEST(Direction, DelaysWithoutRate) {
  os::FakeClock clock;
  Direction direction(quality_of(0, milliseconds(20), 0), 1);
  EXPECT_FALSE(direction.offer(frame_of(100), clock.now()));
  EXPECT_EQ(direction.next_release(), clock.now() + milliseconds(20));
  EXPECT_FALSE(direction.release(clock.now() + milliseconds(20) - Nanoseconds(1)));
  clock.advance(milliseconds(20));
  const auto out = direction.release(clock.now());
  ASSERT_TRUE(out);
  EXPECT_EQ(out->frame.size(), 100U);
  EXPECT_EQ(out->due, clock.now());
}

TEST(Direction, SpacesFramesByTheRateAndEarnsNoCredit) {
  // 1,000 bytes at 8 Mbit/s take 1 ms each, after any idle time.
  Direction direction(quality_of(8, milliseconds(5), 100'000), 1);
  const Instant start = Instant{} + seconds(100);
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(direction.offer(frame_of(1000), start));
  EXPECT_EQ(direction.queued_bytes(start), 3000U);
  EXPECT_EQ(direction.queued_bytes(start + milliseconds(2)), 1000U);
  const auto times = drain(direction, start, start + seconds(1));
  EXPECT_EQ(times, (std::vector<Nanoseconds>{milliseconds(6), milliseconds(7), milliseconds(8)}));
}

TEST(Direction, DropsTheTailOfAFullQueueAndCountsItByTransport) {
  Direction direction(quality_of(8, milliseconds(0), 3000), 1);
  const Instant now{};
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(direction.offer(frame_of(1000), now));
  EXPECT_EQ(direction.offer(frame_of(1000, 6), now), DropCause::queue);
  EXPECT_EQ(direction.offer(frame_of(1000, 17), now), DropCause::queue);
  // One frame's time later there is room for one frame again.
  EXPECT_FALSE(direction.offer(frame_of(1000), now + milliseconds(1)));
  const auto& drops = direction.counters().drops[static_cast<std::size_t>(DropCause::queue)];
  EXPECT_EQ(drops[static_cast<std::size_t>(Transport::tcp)], 1U);
  EXPECT_EQ(drops[static_cast<std::size_t>(Transport::udp)], 1U);
  EXPECT_EQ(direction.counters().dropped(DropCause::queue), 2U);
}

TEST(Direction, QueueInTimeFollowsTheRate) {
  LinkQuality quality = quality_of(8, milliseconds(0), 0);
  quality.queue = {.time = milliseconds(10), .size = {}};
  Direction direction(quality, 1);
  int taken = 0;
  for (int i = 0; i < 50; ++i) taken += direction.offer(frame_of(1000), Instant{}) ? 0 : 1;
  EXPECT_EQ(taken, 10);
  quality.rate = BitRate{16'000'000};
  direction.set_quality(quality, Instant{});
  EXPECT_EQ(direction.queued_bytes(Instant{}), 10'000U);
  for (int i = 0; i < 50; ++i) taken += direction.offer(frame_of(1000), Instant{}) ? 0 : 1;
  EXPECT_EQ(taken, 20);
}

TEST(Direction, AnIdleLinkTakesAFrameLargerThanItsQueue) {
  Direction direction(quality_of(8, milliseconds(0), 500), 1);
  EXPECT_FALSE(direction.offer(frame_of(1000), Instant{}));
  EXPECT_EQ(direction.offer(frame_of(1000), Instant{}), DropCause::queue);
}

TEST(Direction, ThroughputEqualsTheRate) {
  Direction direction(quality_of(400, milliseconds(20), 2'000'000), 1);
  Instant now{};
  std::uint64_t bytes = 0;
  const Instant end = now + seconds(1) + milliseconds(20);
  for (; now < end; now += microseconds(20)) {  // offers 605 Mbit/s
    (void)direction.offer(frame_of(1514), now);
    while (const auto out = direction.release(now)) bytes += out->frame.size();
  }
  EXPECT_NEAR(static_cast<double>(bytes) * 8 / 400e6, 1.0, 0.002);
}

TEST(Direction, LosesTheStatedShare) {
  LinkQuality quality = quality_of(0, milliseconds(0), 0);
  quality.loss = 0.1;
  Direction direction(quality, 7);
  for (int i = 0; i < 20'000; ++i) {
    (void)direction.offer(frame_of(100), Instant{});
    (void)direction.release(Instant{});
  }
  EXPECT_NEAR(static_cast<double>(direction.counters().dropped(DropCause::loss)), 2000, 150);
}

TEST(Direction, JitterKeepsTheOrderUnlessToldOtherwise) {
  for (const bool reorder : {false, true}) {
    LinkQuality quality = quality_of(0, milliseconds(20), 0);
    quality.jitter = milliseconds(5);
    quality.reorder = reorder;
    Direction direction(quality, 3);
    for (std::size_t i = 0; i < 200; ++i) {
      (void)direction.offer(frame_of(60 + i), Instant{} + microseconds(100) * i);
    }
    bool ordered = true;
    std::size_t last = 0;
    Nanoseconds shortest = seconds(1);
    Nanoseconds longest{0};
    while (const auto out = direction.release(Instant{} + seconds(1))) {
      const auto number = out->frame.size() - 60;
      const Nanoseconds delay = out->due - (Instant{} + microseconds(100) * number);
      shortest = std::min(shortest, delay);
      longest = std::max(longest, delay);
      ordered = ordered && out->frame.size() > last;
      last = out->frame.size();
    }
    EXPECT_EQ(ordered, !reorder);
    EXPECT_GE(shortest, milliseconds(15));
    EXPECT_LE(longest, milliseconds(25));
    EXPECT_GT(longest - shortest, milliseconds(3));
  }
}

TEST(Direction, DropsWhatExceedsTheMtu) {
  LinkQuality quality = quality_of(0, milliseconds(0), 0);
  quality.mtu = 1400;
  Direction direction(quality, 1);
  EXPECT_FALSE(direction.offer(frame_of(1414), Instant{}));
  EXPECT_EQ(direction.offer(frame_of(1415), Instant{}), DropCause::mtu);
}

TEST(Direction, ACutLosesWhatIsUnderWayAndWhatComes) {
  Direction direction(quality_of(8, milliseconds(20), 100'000), 1);
  for (int i = 0; i < 4; ++i) EXPECT_FALSE(direction.offer(frame_of(1000), Instant{}));
  direction.cut();
  EXPECT_FALSE(direction.next_release());
  EXPECT_EQ(direction.in_flight_bytes(), 0U);
  EXPECT_EQ(direction.offer(frame_of(1000), Instant{}), DropCause::cut);
  EXPECT_EQ(direction.counters().dropped(DropCause::cut), 5U);
  direction.heal();
  EXPECT_FALSE(direction.offer(frame_of(1000), Instant{}));
  EXPECT_EQ(direction.next_release(), Instant{} + milliseconds(21));
}

TEST(Direction, BoundsWhatIsUnderWay) {
  Direction direction(quality_of(0, seconds(10), 0), 1);
  std::uint64_t taken = 0;
  const Bytes frame = frame_of(9014);
  LinkQuality jumbo = direction.quality();
  jumbo.mtu = 9000;
  direction.set_quality(jumbo, Instant{});
  while (!direction.offer(frame, Instant{})) taken += frame.size();
  EXPECT_LE(taken, kMaxInFlightBytes);
  EXPECT_EQ(direction.counters().dropped(DropCause::queue), 1U);
}

TEST(TransportOf, ReadsBothIpVersionsAndSurvivesShortFrames) {
  EXPECT_EQ(transport_of(frame_of(60, 6)), Transport::tcp);
  EXPECT_EQ(transport_of(frame_of(60, 17)), Transport::udp);
  EXPECT_EQ(transport_of(frame_of(60, 1)), Transport::other);
  Bytes six(60);
  to_big_endian<std::uint16_t>(0x86dd, six.data() + 12);
  six[20] = std::byte{17};
  EXPECT_EQ(transport_of(six), Transport::udp);
  EXPECT_EQ(transport_of(BytesView(six).first(20)), Transport::other);
  EXPECT_EQ(transport_of({}), Transport::other);
}

TEST(DelayError, QuantilesAreWithinABucket) {
  DelayError error;
  EXPECT_EQ(error.quantile(0.99), Nanoseconds(0));
  for (int i = 1; i <= 1000; ++i) error.record(microseconds(i));
  EXPECT_GE(error.quantile(0.5), microseconds(500));
  EXPECT_LE(error.quantile(0.5), microseconds(565));
  EXPECT_GE(error.quantile(0.99), microseconds(990));
  EXPECT_EQ(error.quantile(1.0), microseconds(1000));
  EXPECT_EQ(error.worst(), milliseconds(1));
  error.record(-Nanoseconds(5));
  EXPECT_EQ(error.quantile(0.0), Nanoseconds(0));
  error.record(seconds(1000));
  EXPECT_EQ(error.worst(), seconds(1000));
}

}  // namespace
}  // namespace godwit::lab
