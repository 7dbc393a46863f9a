#include "stream/transfer.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "stream/transfer_pair.hh"

namespace godwit::stream {
namespace {

using test::random_bytes;
using test::TransferPair;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

void offer_all(TransferPair& pair, Transfer& from, StreamId stream, BytesView bytes) {
  for (int idle = 0; !bytes.empty();) {
    const std::size_t taken = from.offer(stream, bytes);
    bytes = bytes.subspan(taken);
    const bool moved = pair.step();
    idle = taken > 0 || moved ? 0 : idle + 1;
    ASSERT_LT(idle, 100) << bytes.size() << " bytes are stuck";
    if (idle > 0) pair.advance(milliseconds(1));
  }
}

TEST(Transfer, CarriesBothStreamsAndVerifiesTheirEnds) {
  TransferPair pair;
  const Bytes memory = random_bytes(3'000'000, pair.random);
  const Bytes answers = random_bytes(5'000, pair.random);
  pair.connect();
  offer_all(pair, pair.source, kMemoryStream, memory);
  offer_all(pair, pair.target, kReturnPathStream, answers);
  pair.source.end(kMemoryStream);
  EXPECT_FALSE(pair.source.finished());
  pair.target.end(kReturnPathStream);
  pair.settle();
  EXPECT_EQ(pair.target_sink.taken_bytes[kMemoryStream], memory);
  EXPECT_EQ(pair.source_sink.taken_bytes[kReturnPathStream], answers);
  EXPECT_THAT(pair.target_sink.ended, ElementsAre(kMemoryStream));
  EXPECT_THAT(pair.source_sink.acknowledged, ElementsAre(kMemoryStream));
  EXPECT_THAT(pair.source_sink.ended, ElementsAre(kReturnPathStream));
  EXPECT_TRUE(pair.source.finished());
  EXPECT_TRUE(pair.target.finished());
  const OutStats out = pair.source.stats().out[kMemoryStream];
  EXPECT_EQ(out.offered, memory.size());
  EXPECT_EQ(out.acked, memory.size());
  EXPECT_EQ(out.resent, 0u);
  EXPECT_THAT(pair.lane_faults, IsEmpty());
}

TEST(Transfer, AnEmptyStreamEndsToo) {
  TransferPair pair;
  pair.connect();
  pair.source.end(kMemoryStream);
  pair.settle();
  EXPECT_THAT(pair.target_sink.ended, ElementsAre(kMemoryStream));
}

// Both streams on their way through whatever happens to the lanes, in steps, with any appetite. A
// small window, so that every bound is met within a few hundred kilobytes.
struct OnTheirWay {
  OnTheirWay(std::uint64_t seed, LaneNumber lanes)
      : pair(seed,
             {{1, Role::kSource, Priority::kMemory, kWindow, 32 << 10},
              {2, Role::kTarget, Priority::kReturnPath, 4 << 10, 4 << 10}},
             lanes) {}
  bool finished() const { return pair.source.finished() && pair.target.finished(); }
  void step() {
    ASSERT_LT(++steps, 200'000);
    ASSERT_THAT(pair.source_sink.failures, IsEmpty());
    ASSERT_THAT(pair.target_sink.failures, IsEmpty());
    ASSERT_THAT(pair.lane_faults, IsEmpty());
    memory_at += pair.source.offer(1, BytesView(memory).subspan(memory_at));
    answers_at += pair.target.offer(2, BytesView(answers).subspan(answers_at));
    if (memory_at == memory.size()) pair.source.end(1);
    if (answers_at == answers.size()) pair.target.end(2);
    pair.target_sink.appetite = pair.random() % 3 == 0 ? 0 : pair.random() % 5'000;
    pair.source_sink.appetite = pair.random() % 2'000;
    if (pair.random() % 2 == 0) pair.target.consumer_ready(1, pair.now);
    if (pair.random() % 2 == 0) pair.source.consumer_ready(2, pair.now);
    pair.step(8'000);
    pair.advance(milliseconds(pair.random() % 3));
    ASSERT_LE(pair.source.stats().out[1].backlog(), kWindow);
  }
  void expect_all_there() {
    EXPECT_EQ(pair.target_sink.taken_bytes[1], memory);
    EXPECT_EQ(pair.source_sink.taken_bytes[2], answers);
    EXPECT_THAT(pair.target_sink.ended, ElementsAre(1));
    EXPECT_THAT(pair.source_sink.acknowledged, ElementsAre(1));
  }

  static constexpr std::size_t kWindow = 64 << 10;
  TransferPair pair;
  const Bytes memory = random_bytes(pair.random() % 600'000, pair.random);
  const Bytes answers = random_bytes(pair.random() % 20'000, pair.random);
  std::size_t memory_at = 0, answers_at = 0;
  int steps = 0;
};

// The property of resuming: whatever the chunks, the appetite and the moments of death, the
// consumer gets exactly the writer's bytes.
class TransferSurvives : public testing::TestWithParam<std::uint64_t> {};

TEST_P(TransferSurvives, LaneDeathsAndSlowConsumers) {
  OnTheirWay streams(GetParam(), 1);
  TransferPair& pair = streams.pair;
  bool connected = false;
  for (int cuts = 0; !streams.finished();) {
    if (!connected) pair.connect(), connected = true;
    ASSERT_NO_FATAL_FAILURE(streams.step());
    if (cuts >= 30 || pair.random() % 20 != 0) continue;
    pair.cut();
    connected = false;
    ++cuts;
  }
  streams.expect_all_there();
}

INSTANTIATE_TEST_SUITE_P(Seeds, TransferSurvives, testing::Range<std::uint64_t>(1, 61));

// The same over several lanes, of which any may die at either end first, while others go on.
class TransferOverLanes : public testing::TestWithParam<std::uint64_t> {};

TEST_P(TransferOverLanes, SurvivesTheDeathOfAny) {
  const auto count = static_cast<LaneNumber>(2 + GetParam() % 4);
  OnTheirWay streams(GetParam(), count);
  TransferPair& pair = streams.pair;
  pair.connect();
  for (int cuts = 0; !streams.finished();) {
    ASSERT_NO_FATAL_FAILURE(streams.step());
    const auto lane = static_cast<LaneNumber>(pair.random() % count);
    const bool is_dead = !pair.source.has_lane(lane) || !pair.target.has_lane(lane);
    if (is_dead && pair.random() % 10 == 0) pair.connect(lane);
    if (is_dead || cuts >= 40 || pair.random() % 10 != 0) continue;
    ++cuts;
    switch (pair.random() % 3) {
      case 0:
        pair.source.lane_down(lane, pair.now);  // what is on its way still arrives
        break;
      case 1:
        pair.target.lane_down(lane, pair.now);
        break;
      default:
        pair.cut(lane);
    }
  }
  streams.expect_all_there();
}

INSTANTIATE_TEST_SUITE_P(Seeds, TransferOverLanes, testing::Range<std::uint64_t>(1, 201));

TEST(Transfer, AStuckLaneHoldsUpOnlyWhatIsOnItAndItsDeathSendsOnlyThatAgain) {
  TransferPair pair(1, vm_streams(), 2);
  pair.connect();
  pair.settle();
  const Bytes memory = random_bytes(1'000'000, pair.random);
  pair.source.offer(kMemoryStream, memory);
  Bytes stuck(kFrameHeader + kBulkFrame);
  ASSERT_EQ(pair.source.take(0, stuck, pair.now), stuck.size());
  Bytes lane(1 << 20);
  lane.resize(pair.source.take(1, lane, pair.now));
  ASSERT_FALSE(pair.target.feed(1, lane, pair.now));
  EXPECT_THAT(pair.target_sink.taken_bytes[kMemoryStream], IsEmpty());
  pair.cut(0);
  pair.settle();
  EXPECT_EQ(pair.target_sink.taken_bytes[kMemoryStream], memory);
  EXPECT_EQ(pair.source.stats().out[kMemoryStream].resent, kBulkFrame);
  EXPECT_EQ(pair.source.stats().lanes_up, 1u);
}

// Half of a frame is on its way again when the first copy turns out to have arrived: the writer may
// not fill its place before the rest has gone.
TEST(Transfer, WhatALaneIsTakingStaysThoughItWasAcknowledged) {
  TransferPair pair(3, {{1, Role::kSource, Priority::kMemory, 4096, 4096}}, 2);
  pair.connect();
  pair.settle();
  const Bytes memory = random_bytes(4096, pair.random);
  ASSERT_EQ(pair.source.offer(1, memory), memory.size());
  Bytes first(8192);
  first.resize(pair.source.take(0, first, pair.now));
  pair.source.lane_down(0, pair.now);
  Bytes half(1000);
  ASSERT_EQ(pair.source.take(1, half, pair.now), half.size());
  ASSERT_FALSE(pair.target.feed(0, first, pair.now));
  pair.now += kAckDelay;
  Bytes ack(1000);
  ack.resize(pair.target.take(1, ack, pair.now));
  ASSERT_FALSE(pair.source.feed(1, ack, pair.now));
  EXPECT_EQ(pair.source.stats().out[1].acked, 4096u);
  EXPECT_LT(pair.source.offer(1, random_bytes(4096, pair.random)), 4096u);
  ASSERT_FALSE(pair.target.feed(1, half, pair.now));
  pair.settle();
  EXPECT_THAT(pair.target_sink.failures, IsEmpty());
  EXPECT_THAT(pair.lane_faults, IsEmpty());
}

TEST(Transfer, OnlyWhatThePeerDidNotReceiveIsSentAgain) {
  TransferPair pair;
  pair.connect();
  pair.settle();
  const Bytes memory = random_bytes(500'000, pair.random);
  pair.source.offer(kMemoryStream, memory);
  Bytes lane(1 << 20);
  lane.resize(pair.source.take(0, lane, pair.now));
  ASSERT_FALSE(pair.target.feed(0, BytesView(lane).first(lane.size() / 2), pair.now));
  const std::uint64_t received = pair.target.stats().in[kMemoryStream].received;
  ASSERT_GT(received, 0u);
  pair.cut();
  pair.connect();
  pair.settle();
  EXPECT_EQ(pair.target_sink.taken_bytes[kMemoryStream], memory);
  EXPECT_EQ(pair.source.stats().out[kMemoryStream].resent, memory.size() - received);
}

TEST(Transfer, ASlowConsumerStopsTheWriterWithinTheWindowAndOtherStreamsGoOn) {
  TransferPair pair;
  pair.connect();
  pair.target_sink.appetite = 0;
  const Bytes block(1 << 20);
  std::size_t offered = 0;
  for (int i = 0; i < 2000; ++i) {
    offered += pair.source.offer(kMemoryStream, block);
    pair.step(1 << 20);
  }
  EXPECT_EQ(offered, kMemoryWindow);
  EXPECT_TRUE(pair.source.space(kMemoryStream).empty());
  // The return path is not behind the stuck memory stream, in either direction.
  offer_all(pair, pair.target, kReturnPathStream, as_bytes("still here"));
  pair.settle();
  EXPECT_EQ(as_text(pair.source_sink.taken_bytes[kReturnPathStream]), "still here");
  // And the consumer can wake up.
  pair.target_sink.appetite = SIZE_MAX;
  pair.target.consumer_ready(kMemoryStream, pair.now);
  pair.settle();
  EXPECT_EQ(pair.target_sink.taken_bytes[kMemoryStream].size(), kMemoryWindow);
  EXPECT_FALSE(pair.source.space(kMemoryStream).empty());
}

TEST(Transfer, WithoutALaneTheWriterMayFillOnlyTheUnsentLimit) {
  TransferPair pair;
  const Bytes block(4 << 20);
  EXPECT_EQ(pair.source.offer(kMemoryStream, block), kUnsentLimit);
}

TEST(Transfer, FlippedBitOnTheLaneIsNeverDelivered) {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    TransferPair pair(seed);
    const Bytes memory = random_bytes(100'000, pair.random);
    pair.connect();
    pair.settle();
    std::size_t until = pair.random() % memory.size();
    pair.tamper = [&](MutableBytes chunk) {
      if (until < chunk.size()) chunk[until] ^= std::byte{4};
      until = until < chunk.size() ? SIZE_MAX : until - chunk.size();
    };
    pair.source.offer(kMemoryStream, memory);
    pair.source.end(kMemoryStream);
    pair.settle();
    const Bytes& got = pair.target_sink.taken_bytes[kMemoryStream];
    ASSERT_TRUE(std::equal(got.begin(), got.end(), memory.begin())) << "seed " << seed;
    ASSERT_TRUE(pair.target_sink.failures.size() + pair.lane_faults.size() > 0) << "seed " << seed;
    ASSERT_THAT(pair.target_sink.ended, IsEmpty());
  }
}

// The bytes of the lane verify but the writer's stream was another: only END can tell.
TEST(Transfer, AWrongSumAtTheEndFailsBothSidesWithAClearError) {
  TransferPair pair;
  pair.connect();
  pair.settle();
  pair.source.offer(kMemoryStream, as_bytes("what QEMU wrote"));
  pair.settle();
  ASSERT_EQ(as_text(pair.target_sink.taken_bytes[kMemoryStream]), "what QEMU wrote");
  Bytes lane;
  const StreamDigest wrong{};
  append_frame(lane, {.kind = FrameKind::kEnd, .stream = kMemoryStream, .sequence = 15}, wrong);
  ASSERT_FALSE(pair.target.feed(0, lane, pair.now));
  pair.settle();
  ASSERT_EQ(pair.target_sink.failures.size(), 1u);
  EXPECT_THAT(pair.target_sink.failures[0], HasSubstr("checksum mismatch over the 15 bytes"));
  EXPECT_THAT(pair.target_sink.ended, IsEmpty());
  ASSERT_EQ(pair.source_sink.failures.size(), 1u);
  EXPECT_THAT(pair.source_sink.failures[0], HasSubstr("given up by the peer"));
  EXPECT_THAT(pair.source_sink.failures[0], HasSubstr("checksum mismatch"));
}

TEST(Transfer, AbortReachesThePeerOnTheNextLane) {
  TransferPair pair;
  pair.source.abort("cancelled by the operator\x1b[2J", pair.now);
  EXPECT_TRUE(pair.source.failed());
  pair.connect();
  pair.settle();
  ASSERT_EQ(pair.target_sink.failures.size(), 1u);
  EXPECT_THAT(pair.target_sink.failures[0], HasSubstr("cancelled by the operator?[2J"));
  EXPECT_EQ(pair.source.offer(kMemoryStream, as_bytes("x")), 0u);
}

TEST(Transfer, APeerThatLostItsStateFailsTheTransfer) {
  TransferPair pair;
  pair.connect();
  offer_all(pair, pair.source, kMemoryStream, random_bytes(1'000'000, pair.random));
  pair.settle();
  test::RecordingSink fresh_sink;
  Transfer fresh({.id = TransferPair::kId, .role = Role::kTarget}, fresh_sink, pair.now);
  pair.source.lane_down(0, pair.now);
  pair.source.lane_up(0, pair.now);
  fresh.lane_up(0, pair.now);
  Bytes hello(1000);
  hello.resize(fresh.take(0, hello, pair.now));
  EXPECT_FALSE(pair.source.feed(0, hello, pair.now));
  ASSERT_EQ(pair.source_sink.failures.size(), 1u);
  EXPECT_THAT(pair.source_sink.failures[0], HasSubstr("lost its state"));
}

TEST(Transfer, ALaneOfAnotherTransferIsClosedAndHarmsNothing) {
  TransferPair pair;
  Bytes lane;
  const TransferId other = TransferId::from(as_bytes("another transfer"));
  append_frame(lane, {.kind = FrameKind::kHello},
               encode(Hello{.role = Role::kSource, .transfer = other}));
  pair.target.lane_up(0, pair.now);
  const auto fault = pair.target.feed(0, lane, pair.now);
  ASSERT_TRUE(fault);
  EXPECT_THAT(fault->why.text, HasSubstr("another transfer"));
  EXPECT_FALSE(pair.target.has_lane());
  EXPECT_FALSE(pair.target.failed());
  pair.connect();
  offer_all(pair, pair.source, kMemoryStream, as_bytes("hello"));
  pair.settle();
  EXPECT_EQ(as_text(pair.target_sink.taken_bytes[kMemoryStream]), "hello");
}

TEST(Transfer, DataBeforeHelloClosesTheLane) {
  TransferPair pair;
  pair.target.lane_up(0, pair.now);
  Bytes lane;
  append_frame(lane, {.kind = FrameKind::kPing});
  EXPECT_TRUE(pair.target.feed(0, lane, pair.now));
}

TEST(Transfer, ASilentLaneIsGivenUpAndPatienceEnds) {
  TransferPair pair;
  pair.connect();
  pair.settle();
  pair.now += kLaneSilence;
  const auto fault = pair.source.tick(pair.now);
  ASSERT_TRUE(fault);
  EXPECT_THAT(fault->why.text, HasSubstr("nothing heard"));
  EXPECT_FALSE(pair.source.failed());
  EXPECT_EQ(pair.source.next_tick(), pair.now + kLanePatience);
  pair.now += kLanePatience;
  EXPECT_FALSE(pair.source.tick(pair.now));
  ASSERT_EQ(pair.source_sink.failures.size(), 1u);
  EXPECT_THAT(pair.source_sink.failures[0], HasSubstr("no connection to the peer for"));
}

TEST(Transfer, PingsKeepAnIdleLaneAliveAndMeasureIt) {
  TransferPair pair;
  pair.connect();
  for (int i = 0; i < 600; ++i) {
    pair.step();
    pair.advance(milliseconds(100));
  }
  EXPECT_THAT(pair.lane_faults, IsEmpty());
  ASSERT_TRUE(pair.source.stats().lane_rtt);
  EXPECT_LE(*pair.source.stats().lane_rtt, milliseconds(300));
  EXPECT_LT(pair.source.stats().lane_bytes_out, 4'000u);
}

// Returns the bytes that `transfer` gave in `duration`, woken only by its own next_tick().
std::size_t run_paced(TransferPair& pair, Transfer& transfer, Nanoseconds duration) {
  const Instant until = pair.now + duration;
  Bytes block(1 << 20), lane(1 << 20);
  std::size_t total = 0;
  while (pair.now < until) {
    transfer.offer(kMemoryStream, block);
    const std::size_t count = transfer.take(0, lane, pair.now);
    total += count;
    if (count > 0) {
      if (pair.target.feed(0, BytesView(lane).first(count), pair.now)) return 0;
      const std::size_t back = pair.target.take(0, lane, pair.now);
      if (pair.source.feed(0, BytesView(lane).first(back), pair.now)) return 0;
      continue;
    }
    const Instant next = std::min(transfer.next_tick(), pair.target.next_tick());
    pair.now = std::max(pair.now + std::chrono::microseconds(1), next);
    const std::size_t back = pair.target.take(0, lane, pair.now);
    if (pair.source.feed(0, BytesView(lane).first(back), pair.now)) return 0;
  }
  return total;
}

TEST(Transfer, KeepsToTheBandwidthCapAndReachesIt) {
  TransferPair pair;
  pair.connect();
  pair.settle();
  const BitRate cap{200'000'000};
  pair.source.set_bandwidth(cap, pair.now);
  const auto total = static_cast<double>(run_paced(pair, pair.source, seconds(2)));
  const double expected = cap.bytes_per_second() * 2;
  EXPECT_GT(total, expected * 0.98);
  EXPECT_LT(total, expected * 1.01 + static_cast<double>(kMinPacingBurst));
  const auto measured = static_cast<double>(pair.source.stats().delivery_rate.bits_per_second);
  EXPECT_NEAR(measured, 200e6, 10e6);
  // Lifted while it runs.
  pair.source.set_bandwidth(BitRate{400'000'000}, pair.now);
  EXPECT_GT(static_cast<double>(run_paced(pair, pair.source, seconds(1))), 49e6);
}

TEST(Transfer, UrgentBytesDoNotWaitForTheCap) {
  TransferPair pair(1, {{1, Role::kSource, Priority::kMemory, 1 << 20, 1 << 20},
                        {3, Role::kSource, Priority::kControl, 4096, 4096}});
  pair.connect();
  pair.settle();
  pair.source.set_bandwidth(BitRate{1'000'000}, pair.now);
  Bytes block(1 << 20), lane(1 << 20);
  pair.source.offer(1, block);
  while (pair.source.take(0, lane, pair.now) > 0) {
  }
  // Tokens are spent, in the middle of a frame or between two.
  pair.source.offer(3, as_bytes("urgent"));
  Nanoseconds waited{};
  std::size_t count = 0;
  for (; waited < seconds(1); waited += milliseconds(1)) {
    count = pair.source.take(0, lane, pair.now + waited);
    if (as_text(BytesView(lane).first(count)).find("urgent") != std::string_view::npos) break;
  }
  // At most the rest of one frame of kLeastBulkFrame at 1 Mbit/s is ahead of it.
  EXPECT_LE(waited, milliseconds(kLeastBulkFrame * 8 / 1000 + 2));
}

TEST(Transfer, PrioritiesDecideWhoGoesFirst) {
  TransferPair pair(1, {{1, Role::kSource, Priority::kMemory, 1 << 20, 1 << 20},
                        {2, Role::kSource, Priority::kMemory, 1 << 20, 1 << 20}});
  pair.connect();
  pair.settle();
  pair.source.set_priority(2, Priority::kFinalMemory);
  const Bytes block(600'000);
  pair.source.offer(1, block);
  pair.source.offer(2, block);
  Bytes lane(600'000);
  pair.source.take(0, lane, pair.now);
  EXPECT_GT(pair.source.stats().out[2].sent, 500'000u);
  EXPECT_EQ(pair.source.stats().out[1].sent, 0u);
}

TEST(Transfer, EqualPrioritiesTakeTurns) {
  TransferPair pair(1, {{1, Role::kSource, Priority::kMemory, 1 << 20, 1 << 20},
                        {2, Role::kSource, Priority::kMemory, 1 << 20, 1 << 20}});
  pair.connect();
  pair.settle();
  const Bytes block(600'000);
  pair.source.offer(1, block);
  pair.source.offer(2, block);
  Bytes lane(600'000);
  pair.source.take(0, lane, pair.now);
  EXPECT_GE(pair.source.stats().out[1].sent, 2 * kBulkFrame);
  EXPECT_GE(pair.source.stats().out[2].sent, 2 * kBulkFrame);
}

}  // namespace
}  // namespace godwit::stream
