#include "disk/outbound.hh"

#include <gmock/gmock.h>

namespace godwit::disk {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr std::uint64_t kPlenty = 64 << 20;
constexpr std::uint64_t kBlock = kBlockBytes;

struct Heard final : OutboundSink {
  void read(std::uint8_t disk, Extent extent) override { reads.emplace_back(disk, extent); }
  void send(const Record& record) override {
    sent.push_back(record);
    sent.back().data = {};
  }
  void answer(WriteToken token) override { answered.push_back(token.request); }

  std::vector<std::pair<std::uint8_t, Extent>> reads;
  std::vector<Record> sent;
  std::vector<std::uint64_t> answered;
};

class DiskOutbound : public ::testing::Test {
 protected:
  void make(Mode mode) { outbound_.emplace(std::vector<ByteCount>{{16 * kBlock}}, mode, heard_); }
  void write(std::uint64_t request, std::uint64_t offset = 0) {
    outbound_->written({.disk = 0, .request = request}, offset, data_, now_);
    pump();
  }
  void pump() { outbound_->pump(kPlenty, now_); }
  void read_all() {
    for (const auto& [disk, extent] : std::exchange(heard_.reads, {})) {
      outbound_->read_done(disk, extent, Bytes(extent.length, std::byte{1}));
    }
    pump();
  }

  Instant now_{};
  Bytes data_ = Bytes(512, std::byte{9});
  Heard heard_;
  std::optional<Outbound> outbound_;
};

TEST_F(DiskOutbound, AsynchronouslyAWriteIsAnsweredAtOnceAndReadLater) {
  make(Mode::async);
  write(1, 3 * kBlock);
  EXPECT_THAT(heard_.answered, ElementsAre(1));
  ASSERT_EQ(heard_.reads.size(), 1u);
  EXPECT_EQ(heard_.reads[0].second, (Extent{.offset = 3 * kBlock, .length = kBlock}));
  read_all();
  ASSERT_EQ(heard_.sent.size(), 1u);
  EXPECT_EQ(heard_.sent[0].kind, RecordKind::kWrite);
}

TEST_F(DiskOutbound, SynchronouslyItIsAnsweredByItsAcknowledgement) {
  make(Mode::sync);
  write(1);
  write(2, kBlock);
  EXPECT_THAT(heard_.reads, IsEmpty());
  EXPECT_THAT(heard_.answered, IsEmpty());
  EXPECT_TRUE(outbound_->acknowledged(1));
  EXPECT_THAT(heard_.answered, ElementsAre(1));
  EXPECT_TRUE(outbound_->acknowledged(2));
  EXPECT_THAT(heard_.answered, ElementsAre(1, 2));
  EXPECT_FALSE(outbound_->acknowledged(3)) << "more than was sent";
}

TEST_F(DiskOutbound, InStepALittleIsAnsweredAsItGoes) {
  make(Mode::async_then_sync);
  outbound_->keep_in_step();
  write(1);
  EXPECT_THAT(heard_.answered, ElementsAre(1));
  EXPECT_EQ(heard_.sent.size(), 1u);
  EXPECT_THAT(heard_.reads, IsEmpty()) << "it goes as it is";
  EXPECT_TRUE(outbound_->in_step());
  data_.resize(Outbound::kMostAhead);
  write(2);
  outbound_->acknowledged(1);
  EXPECT_THAT(heard_.answered, ElementsAre(1)) << "more waits for the target";
  outbound_->acknowledged(2);
  EXPECT_THAT(heard_.answered, ElementsAre(1, 2));
  data_.resize(Outbound::kMostAhead / 2);
  for (const std::uint64_t request : {3U, 4U, 5U}) write(request);
  EXPECT_THAT(heard_.answered, ElementsAre(1, 2, 3)) << "the record's header counts, too";
  outbound_->acknowledged(3);
  write(6);
  EXPECT_THAT(heard_.answered, ElementsAre(1, 2, 3, 6)) << "there is room again";
}

TEST_F(DiskOutbound, WithoutAnAcknowledgementItIsAsynchronousUntilTheyComeAgain) {
  make(Mode::sync);
  write(1);
  now_ += Outbound::kPatience;
  pump();
  EXPECT_THAT(heard_.answered, ElementsAre(1));
  EXPECT_FALSE(outbound_->synchronous());
  write(2);
  EXPECT_THAT(heard_.answered, ElementsAre(1, 2)) << "a cut link holds the guest up once";
  outbound_->acknowledged(1);
  pump();
  EXPECT_TRUE(outbound_->synchronous());
}

TEST_F(DiskOutbound, AWriteThatOvertakesAReadIsReadAgain) {
  make(Mode::async);
  outbound_->mark(0, {.offset = 0, .length = kBlock});
  pump();
  ASSERT_EQ(heard_.reads.size(), 1u);
  write(1);
  EXPECT_EQ(heard_.reads.size(), 1u) << "two reads of one block could be done in either order";
  read_all();
  EXPECT_EQ(heard_.reads.size(), 1u) << "what was read may be of before the write";
}

TEST_F(DiskOutbound, TheSameSynchronously) {
  make(Mode::async_then_sync);
  outbound_->mark(0, {.offset = 0, .length = kBlock});
  pump();
  outbound_->keep_in_step();
  write(1);
  ASSERT_EQ(heard_.sent.size(), 1u);
  read_all();
  EXPECT_EQ(heard_.reads.size(), 1u);
  EXPECT_FALSE(outbound_->in_step());
  read_all();
  EXPECT_TRUE(outbound_->in_step());
}

TEST_F(DiskOutbound, ZeroesAreSentAsSuch) {
  make(Mode::async);
  outbound_->mark(0, {.offset = 0, .length = 3 * kBlock});
  pump();
  Bytes data(3 * kBlock);
  data[kBlock] = std::byte{1};
  outbound_->read_done(0, heard_.reads.front().second, data);
  ASSERT_EQ(heard_.sent.size(), 3u);
  EXPECT_EQ(heard_.sent[0].kind, RecordKind::kZero);
  EXPECT_EQ(heard_.sent[1].kind, RecordKind::kWrite);
  EXPECT_EQ(heard_.sent[1].extent, (Extent{.offset = kBlock, .length = kBlock}));
  EXPECT_EQ(heard_.sent[2].kind, RecordKind::kZero);
}

TEST_F(DiskOutbound, ZeroesThatAreLongerThanARecordAreSeveral) {
  outbound_.emplace(std::vector<ByteCount>{{3ULL << 30}}, Mode::sync, heard_);
  outbound_->zeroed({.disk = 0, .request = 1}, {.offset = 512, .length = (2ULL << 30) + 512}, now_);
  ASSERT_EQ(heard_.sent.size(), 3u);
  EXPECT_EQ(heard_.sent[1].extent,
            (Extent{.offset = kMaxRecordLength + 512, .length = kMaxRecordLength}));
  EXPECT_EQ(heard_.sent[2].extent, (Extent{.offset = (2ULL << 30) + 512, .length = 512}));
  EXPECT_TRUE(outbound_->acknowledged(2));
  EXPECT_THAT(heard_.answered, IsEmpty());
  EXPECT_TRUE(outbound_->acknowledged(3));
  EXPECT_THAT(heard_.answered, ElementsAre(1));
}

TEST_F(DiskOutbound, WhatIsDiscardedIsRead) {
  make(Mode::sync);
  outbound_->discarded({.disk = 0, .request = 1}, {.offset = 0, .length = kBlock});
  pump();
  EXPECT_THAT(heard_.answered, ElementsAre(1));
  EXPECT_EQ(heard_.reads.size(), 1u);
}

TEST_F(DiskOutbound, AFlushAheadAnswersNobodyAndIsOfSomething) {
  make(Mode::sync);
  outbound_->flush_ahead();
  EXPECT_TRUE(heard_.sent.empty());
  write(1);
  outbound_->flush_ahead();
  outbound_->flush_ahead();
  ASSERT_EQ(heard_.sent.size(), 2u);
  EXPECT_EQ(heard_.sent[1].kind, RecordKind::kFlush);
  EXPECT_TRUE(outbound_->acknowledged(1));
  EXPECT_THAT(heard_.answered, ElementsAre(1));
  EXPECT_TRUE(outbound_->acknowledged(2));
  EXPECT_THAT(heard_.answered, ElementsAre(1));
  write(2);
  outbound_->flush_ahead();
  EXPECT_EQ(heard_.sent.size(), 4u);
}

TEST_F(DiskOutbound, NothingGoesBehindTheEnd) {
  make(Mode::async);
  outbound_->finish();
  pump();
  ASSERT_EQ(heard_.sent.size(), 1u);
  EXPECT_EQ(heard_.sent[0].kind, RecordKind::kEnd);
  outbound_->flush_ahead();
  EXPECT_EQ(heard_.sent.size(), 1u);
}

TEST_F(DiskOutbound, ThoseOfAGuestThatIsAboutToStopAreAnswered) {
  make(Mode::sync);
  write(1);
  outbound_->release_writes();
  EXPECT_THAT(heard_.answered, ElementsAre(1));
  write(2, kBlock);
  EXPECT_THAT(heard_.answered, ElementsAre(1, 2));
  EXPECT_FALSE(outbound_->synchronous());
  outbound_->finish();
  read_all();
  EXPECT_FALSE(outbound_->finished());
  outbound_->acknowledged(3);
  EXPECT_TRUE(outbound_->finished());
}

TEST_F(DiskOutbound, TheEndComesWhenNothingIsLeft) {
  make(Mode::async);
  write(1);
  outbound_->finish();
  pump();
  EXPECT_THAT(heard_.sent, IsEmpty());
  read_all();
  ASSERT_EQ(heard_.sent.size(), 2u);
  EXPECT_EQ(heard_.sent[1].kind, RecordKind::kEnd);
  outbound_->acknowledged(1);
  EXPECT_FALSE(outbound_->finished());
  outbound_->acknowledged(2);
  EXPECT_TRUE(outbound_->finished());
}

TEST_F(DiskOutbound, WhatQemuSaysAfterTheEndIsAnswered) {
  make(Mode::sync);
  outbound_->finish();
  pump();
  outbound_->flushed({.disk = 0, .request = 7}, now_);
  EXPECT_THAT(heard_.answered, ElementsAre(7));
}

TEST_F(DiskOutbound, AWriteAfterTheEndIsNeverFinished) {
  make(Mode::sync);
  outbound_->finish();
  pump();
  write(1);
  outbound_->acknowledged(1);
  EXPECT_FALSE(outbound_->finished()) << "the target has not all that the guest wrote";
  EXPECT_THAT(heard_.reads, IsEmpty());
}

TEST_F(DiskOutbound, ReadsAreBoundedByTheRoom) {
  make(Mode::async);
  outbound_->mark(0, {.offset = 0, .length = 16 * kBlock});
  outbound_->pump(0, now_);
  EXPECT_THAT(heard_.reads, IsEmpty());
  outbound_->pump(1, now_);
  EXPECT_EQ(heard_.reads.size(), 1u);
}

}  // namespace
}  // namespace godwit::disk
