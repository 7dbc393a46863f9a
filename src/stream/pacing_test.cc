#include <gtest/gtest.h>

#include "stream/byte_ring.hh"
#include "stream/delivery_rate.hh"
#include "stream/token_bucket.hh"

namespace godwit::stream {
namespace {

constexpr Instant kStart{seconds(100)};

TEST(TokenBucket, WithoutACapAllMayGo) {
  TokenBucket bucket;
  EXPECT_EQ(bucket.allowance(1'000'000'000, kStart), 1'000'000'000u);
}

TEST(TokenBucket, RefillsAtTheRateAndNoFurtherThanTheBurst) {
  TokenBucket bucket;
  bucket.set_rate(BitRate{800'000'000}, kStart);  // 100 MB/s; a burst of 8 ms = 800 kB
  EXPECT_EQ(bucket.allowance(10'000'000, kStart), 800'000u);
  bucket.spend(800'000);
  EXPECT_EQ(bucket.allowance(10'000'000, kStart), 0u);
  EXPECT_EQ(bucket.allowance(10'000'000, kStart + milliseconds(1)), 100'000u);
  EXPECT_EQ(bucket.allowance(10'000'000, kStart + seconds(10)), 800'000u);
}

TEST(TokenBucket, UrgentBytesAreABorrowingFromBulk) {
  TokenBucket bucket;
  bucket.set_rate(BitRate{8'000'000}, kStart);  // 1 MB/s, the least burst
  bucket.spend(kMinPacingBurst + 100'000);
  EXPECT_EQ(bucket.allowance(kPacingQuantum, kStart + milliseconds(100)), 0u);
  const Instant ready = bucket.ready_at();
  EXPECT_NEAR(to_ms(ready - kStart), 116.4, 0.1);
  EXPECT_GT(bucket.allowance(kPacingQuantum, ready), 0u);
}

TEST(TokenBucket, RateZeroStopsBulk) {
  TokenBucket bucket;
  bucket.set_rate(BitRate{0}, kStart);
  bucket.spend(kMinPacingBurst);
  EXPECT_EQ(bucket.allowance(1, kStart + seconds(1000)), 0u);
  EXPECT_EQ(bucket.ready_at(), Instant::max());
}

// Feeds a lane that carries 10 MB/s, in steps of 10 ms.
void run(DeliveryRate& rate, Instant& now, Nanoseconds duration, bool limited,
         std::uint64_t bytes_per_step) {
  for (const Instant until = now + duration; now < until;) {
    now += milliseconds(10);
    rate.pass(now, limited);
    rate.acknowledged(bytes_per_step);
  }
}

TEST(DeliveryRate, IsTheMeanWhileTheLaneIsTheLimit) {
  DeliveryRate rate;
  Instant now = kStart;
  EXPECT_EQ(rate.rate().bits_per_second, 0u);
  rate.pass(now, true);
  run(rate, now, seconds(3), true, 100'000);
  EXPECT_NEAR(static_cast<double>(rate.rate().bits_per_second), 80e6, 1e6);
  // It follows within the window.
  run(rate, now, seconds(3), true, 50'000);
  EXPECT_NEAR(static_cast<double>(rate.rate().bits_per_second), 40e6, 1e6);
}

TEST(DeliveryRate, AnIdleWriterDoesNotMakeTheLaneLookSlow) {
  DeliveryRate rate;
  Instant now = kStart;
  rate.pass(now, true);
  run(rate, now, seconds(3), true, 100'000);
  run(rate, now, seconds(10), false, 1'000);
  EXPECT_NEAR(static_cast<double>(rate.rate().bits_per_second), 80e6, 1e6);
  // But more than the estimate in a slot is proof of more.
  run(rate, now, seconds(1), false, 200'000);
  EXPECT_NEAR(static_cast<double>(rate.rate().bits_per_second), 160e6, 20e6);
}

TEST(ByteRing, KeepsPositionsOverTheWrap) {
  ByteRing ring(16);
  ring.rewind(100);
  ring.write(100, as_bytes("0123456789"));
  ring.write(110, as_bytes("abcdefghij"));  // over 100..103
  EXPECT_EQ(as_text(ring.at(104, 6)), "456789");
  EXPECT_EQ(as_text(ring.at(110, 100)), "abcdef");
  EXPECT_EQ(as_text(ring.at(116, 4)), "ghij");
}

}  // namespace
}  // namespace godwit::stream
