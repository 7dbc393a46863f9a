// A Sealer and an Opener with a network between them that loses, repeats and reorders.
#include <gtest/gtest.h>

#include <algorithm>

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

  void carry() {
    for (Bytes& datagram : testing::datagrams_of(batch)) opener.open(datagram, now, sink);
    batch.clear();
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

}  // namespace
}  // namespace godwit::wire
