// A Sealer and an Opener with a network between them that loses, repeats and reorders.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "wire/wire_testing.hh"

namespace godwit::wire {
namespace {

using testing::Collected;
using testing::Random;

struct Lane {
  FramePool pool;
  Sealer sealer{testing::test_key(), 1500};
  Opener opener{testing::test_key(), pool};
  DatagramBatch batch;
  Collected sink;
  Instant now{seconds(1)};

  std::vector<Bytes> take() {
    auto datagrams = testing::datagrams_of(batch);
    batch.clear();
    return datagrams;
  }
  bool open(Bytes datagram) { return opener.open(datagram, now, sink); }
  void carry() {
    for (const Bytes& datagram : take()) open(datagram);
  }
  void wait(Nanoseconds time) {
    now += time;
    opener.tick(now, sink);
  }
};

TEST(Lane, CarriesFramesOfEverySizeInOrder) {
  Lane lane;
  Random random(1);
  std::vector<Bytes> sent;
  for (std::size_t size = kMinFrameBytes; size <= kMaxFrameBytes; size += 1 + size / 50) {
    sent.push_back(testing::plain_frame(size, random));
  }
  sent.push_back(testing::plain_frame(kMaxFrameBytes, random));
  for (const Bytes& frame : sent) lane.sealer.frame(frame, lane.batch);
  lane.sealer.flush(lane.batch);
  lane.carry();
  EXPECT_EQ(lane.sink.frames, sent);
  EXPECT_EQ(lane.opener.counters().frames, sent.size());
  EXPECT_EQ(lane.opener.partial_frames(), 0u);
  EXPECT_EQ(lane.pool.in_use(), 0u);
  EXPECT_TRUE(lane.opener.received_all_below(lane.sealer.next_counter()));
}

TEST(Lane, MessagesComeAfterAllFramesBeforeThem) {
  Lane lane;
  Random random(2);
  const Bytes frame = testing::plain_frame(100, random);
  lane.sealer.frame(frame, lane.batch);
  lane.sealer.message(7, as_bytes("eof"), lane.batch);
  ASSERT_EQ(lane.batch.datagrams(), 2u);
  lane.carry();
  EXPECT_EQ(lane.sink.frames, std::vector<Bytes>{frame});
  const Collected::Message expected{7, to_bytes(as_bytes("eof")), 1};
  EXPECT_EQ(lane.sink.messages, std::vector{expected});
}

TEST(Lane, SmallFramesShareDatagramsAndBatchesShareRuns) {
  Lane lane;
  Random random(3);
  for (int i = 0; i < 1000; ++i) lane.sealer.frame(testing::plain_frame(70, random), lane.batch);
  lane.sealer.flush(lane.batch);
  // 19 frames of 72 B fit 1420 B.
  EXPECT_EQ(lane.batch.datagrams(), 53u);
  EXPECT_LE(lane.batch.runs().size(), 2u);
  lane.batch.clear();
  for (int i = 0; i < 32; ++i) lane.sealer.frame(testing::plain_frame(1524, random), lane.batch);
  lane.sealer.flush(lane.batch);
  EXPECT_EQ(lane.batch.datagrams(), 64u);
  EXPECT_EQ(lane.batch.runs().size(), 1u);
}

TEST(Lane, NoDatagramExceedsThePath) {
  for (const std::size_t mtu : {kMinPathMtu, std::size_t{1500}, std::size_t{9000}}) {
    DatagramBatch batch;
    Sealer sealer(testing::test_key(), mtu);
    Random random(4);
    for (std::size_t size = kMinFrameBytes; size <= kMaxFrameBytes; size += 777) {
      sealer.frame(testing::plain_frame(size, random), batch);
    }
    sealer.flush(batch);
    for (const DatagramRun& run : batch.runs()) EXPECT_LE(run.segment_size + kIpUdpBytes, mtu);
  }
}

TEST(Lane, RefusesCopiesForgeriesAndStrangers) {
  Lane lane;
  Random random(5);
  lane.sealer.frame(testing::plain_frame(5000, random), lane.batch);
  lane.sealer.message(1, as_bytes("x"), lane.batch);
  const auto datagrams = lane.take();
  for (const Bytes& datagram : datagrams) {
    for (std::size_t at = 0; at < datagram.size(); at += at < kHeaderBytes ? 1 : 97) {
      Bytes forged = datagram;
      forged[at] ^= std::byte{1};
      EXPECT_FALSE(lane.open(forged)) << "byte " << at;
    }
  }
  EXPECT_EQ(lane.opener.counters().datagrams, 0u);
  EXPECT_EQ(lane.pool.in_use(), 0u);
  for (const Bytes& datagram : datagrams) EXPECT_TRUE(lane.open(datagram));
  for (const Bytes& datagram : datagrams) EXPECT_FALSE(lane.open(datagram));
  EXPECT_EQ(lane.opener.counters().replayed, datagrams.size());
  EXPECT_EQ(lane.sink.frames.size(), 1u);
  EXPECT_EQ(lane.sink.messages.size(), 1u);
  Opener other(testing::test_key(4), lane.pool);
  Bytes stranger = datagrams.back();
  EXPECT_FALSE(other.open(stranger, lane.now, lane.sink));
  EXPECT_EQ(other.counters().misdirected, 1u);
}

// The header shows one byte of the epoch; the tag covers all four.
TEST(Lane, AnEpochThatDiffersOnlyInItsHiddenBytesIsRefused) {
  Lane lane;
  lane.sealer.message(1, {}, lane.batch);
  Bytes datagram = lane.take().front();
  Opener other(testing::test_key(3 + 256), lane.pool);
  EXPECT_FALSE(other.open(datagram, lane.now, lane.sink));
  EXPECT_EQ(other.counters().bad_tag, 1u);
}

TEST(Lane, ForgedFragmentsDoNotSpoilAFrameBeingPutTogether) {
  Lane lane;
  Random random(6);
  const Bytes frame = testing::plain_frame(20'000, random);
  lane.sealer.frame(frame, lane.batch);
  for (const Bytes& datagram : lane.take()) {
    Bytes forged = datagram;
    forged.back() ^= std::byte{1};
    EXPECT_FALSE(lane.open(forged));
    EXPECT_TRUE(lane.open(datagram));
    EXPECT_FALSE(lane.open(forged));
  }
  EXPECT_EQ(lane.sink.frames, std::vector<Bytes>{frame});
}

TEST(Lane, ReassemblyMemoryIsBoundedAndComesBack) {
  Lane lane;
  Random random(7);
  for (int i = 0; i < 200; ++i) {
    lane.sealer.frame(testing::plain_frame(30'000, random), lane.batch);
    lane.open(lane.take().front());
    EXPECT_LE(lane.pool.in_use(), kMaxPartialFrames);
  }
  EXPECT_EQ(lane.opener.partial_frames(), kMaxPartialFrames);
  ASSERT_TRUE(lane.opener.next_tick().has_value());
  lane.wait(kGiveUpDelay);
  EXPECT_FALSE(lane.opener.next_tick().has_value());
  EXPECT_EQ(lane.pool.in_use(), 0u);
  EXPECT_EQ(lane.opener.counters().incomplete, 200u);
  EXPECT_TRUE(lane.sink.frames.empty());
}

TEST(Lane, AnEmptyPoolDropsFragmentsAndCountsThem) {
  FramePool pool(0);
  Opener opener(testing::test_key(), pool);
  Lane lane;
  Random random(8);
  lane.sealer.frame(testing::plain_frame(3000, random), lane.batch);
  for (Bytes& datagram : lane.take()) EXPECT_TRUE(opener.open(datagram, lane.now, lane.sink));
  EXPECT_EQ(opener.counters().no_buffer, 3u);
  Drops drops;
  opener.counters().add_to(drops);
  EXPECT_EQ(drops.at("no_buffer"), 3u);
}

TEST(Lane, AKeyIsUsedUpForGoodAndSaysSo) {
  Lane lane;
  Random random(11);
  Sealer sealer(testing::test_key(), 1500, 6);
  EXPECT_TRUE(sealer.wants_rekey());
  EXPECT_FALSE(Sealer(testing::test_key(), 1500).wants_rekey());
  sealer.frame(testing::plain_frame(4000, random), lane.batch);  // counters 0 to 2
  sealer.frame(testing::plain_frame(100, random), lane.batch);   // waits for 3
  sealer.frame(testing::plain_frame(4000, random), lane.batch);  // would need 4 to 6
  EXPECT_EQ(sealer.counters().exhausted, 1u);
  sealer.message(1, {}, lane.batch);
  sealer.message(2, {}, lane.batch);
  EXPECT_TRUE(sealer.exhausted());
  sealer.message(3, {}, lane.batch);
  sealer.frame(testing::plain_frame(100, random), lane.batch);
  sealer.flush(lane.batch);
  EXPECT_EQ(sealer.counters().exhausted, 3u);
  EXPECT_EQ(sealer.next_counter(), 6u);
  lane.carry();
  EXPECT_EQ(lane.sink.frames.size(), 2u);
  EXPECT_EQ(lane.sink.messages.size(), 2u);
}

TEST(Lane, SettledTellsLateFromLost) {
  Lane lane;
  for (int i = 0; i < 10; ++i) lane.sealer.message(1, {}, lane.batch);
  const auto datagrams = lane.take();
  for (std::size_t i = 0; i < 10; ++i) {
    if (i != 4) lane.open(datagrams[i]);
  }
  EXPECT_FALSE(lane.opener.received_all_below(10));
  EXPECT_TRUE(lane.opener.received_all_below(4));
  EXPECT_FALSE(lane.opener.settled_below(10, lane.now));
  lane.now += kReorderHorizon;
  EXPECT_TRUE(lane.opener.settled_below(10, lane.now));
  EXPECT_FALSE(lane.opener.settled_below(11, lane.now));
  EXPECT_FALSE(lane.opener.received_all_below(10));
  EXPECT_TRUE(lane.open(datagrams[4]));
  EXPECT_TRUE(lane.opener.received_all_below(10));
}

TEST(Lane, ATailLossIsSalvagedAfterTheDelay) {
  Lane lane;
  Random random(9);
  lane.sealer.frame(testing::super_frame({}, random), lane.batch);
  auto datagrams = lane.take();
  datagrams.pop_back();
  for (const Bytes& datagram : datagrams) lane.open(datagram);
  lane.wait(kSalvageDelay - Nanoseconds(1));
  EXPECT_TRUE(lane.sink.frames.empty());
  lane.wait(Nanoseconds(1));
  EXPECT_EQ(lane.sink.frames.size(), 1u);
  EXPECT_EQ(lane.opener.counters().salvaged, 1u);
}

TEST(Lane, AnOvertakenFrameIsSalvagedBeforeTheNextOneCompletes) {
  Lane lane;
  Random random(10);
  const Bytes second = testing::super_frame({}, random);
  lane.sealer.frame(testing::super_frame({}, random), lane.batch);
  lane.sealer.frame(second, lane.batch);
  auto datagrams = lane.take();
  datagrams.erase(datagrams.begin() + 20);
  for (const Bytes& datagram : datagrams) lane.open(datagram);
  ASSERT_EQ(lane.sink.frames.size(), 3u);
  EXPECT_EQ(lane.sink.frames.back(), second);
}

}  // namespace
}  // namespace godwit::wire
