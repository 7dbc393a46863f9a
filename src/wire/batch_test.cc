#include "wire/batch.hh"

#include <gtest/gtest.h>

#include <random>

namespace godwit::wire {
namespace {

TEST(DatagramBatch, EqualSizesShareARunThatAShorterOneEnds) {
  DatagramBatch batch;
  for (const std::size_t size : {1000U, 1000U, 400U, 400U, 1000U}) batch.add(size);
  ASSERT_EQ(batch.runs().size(), 3u);
  EXPECT_EQ(batch.runs()[0].bytes.size(), 2400u);
  EXPECT_EQ(batch.runs()[0].segment_size, 1000u);
  EXPECT_EQ(batch.runs()[0].datagrams(), 3u);
  EXPECT_EQ(batch.runs()[1].segment_size, 400u);
  EXPECT_EQ(batch.runs()[2].segment_size, 1000u);
  EXPECT_EQ(batch.datagrams(), 5u);
  EXPECT_EQ(batch.bytes(), 3800u);
}

TEST(DatagramBatch, RunsKeepToTheLimitsOfOneSend) {
  DatagramBatch batch;
  for (int i = 0; i < 130; ++i) batch.add(100);
  ASSERT_EQ(batch.runs().size(), 3u);
  EXPECT_EQ(batch.runs()[0].datagrams(), kMaxRunSegments);
  batch.clear();
  for (int i = 0; i < 46; ++i) batch.add(1452);
  ASSERT_EQ(batch.runs().size(), 2u);
  EXPECT_EQ(batch.runs()[0].datagrams(), 45u);
}

TEST(DatagramBatch, KeepsWhatWasWrittenAndItsBlocks) {
  std::mt19937 random(1);
  DatagramBatch batch;
  const std::byte* first_block = nullptr;
  for (int round = 0; round < 3; ++round) {
    std::vector<std::byte> marks;
    for (int i = 0; i < 1000; ++i) {
      const MutableBytes bytes = batch.add(1 + random() % 3000);
      marks.push_back(static_cast<std::byte>(random()));
      std::ranges::fill(bytes, marks.back());
    }
    std::size_t at = 0;
    for (const DatagramRun& run : batch.runs()) {
      ASSERT_LE(run.datagrams(), kMaxRunSegments);
      ASSERT_LE(run.bytes.size(), kMaxRunBytes);
      for (std::size_t offset = 0; offset < run.bytes.size(); offset += run.segment_size) {
        EXPECT_EQ(run.bytes[offset], marks[at++]);
      }
    }
    EXPECT_EQ(at, 1000u);
    if (round == 0) first_block = batch.runs()[0].bytes.data();
    EXPECT_EQ(batch.runs()[0].bytes.data(), first_block);
    batch.clear();
    EXPECT_TRUE(batch.empty());
  }
}

}  // namespace
}  // namespace godwit::wire
