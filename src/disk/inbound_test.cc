#include "disk/inbound.hh"

#include <gmock/gmock.h>

namespace godwit::disk {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

struct Begun final : InboundSink {
  void write(std::uint64_t number, std::uint8_t, std::uint64_t, BytesView) override {
    numbers.push_back(number);
  }
  void zero(std::uint64_t number, std::uint8_t, Extent) override { numbers.push_back(number); }
  void copy(std::uint64_t number, std::uint8_t, Extent, const Digest& digest) override {
    numbers.push_back(number);
    digests.push_back(digest);
  }
  void flush(std::uint64_t number) override { numbers.push_back(number); }
  std::vector<std::uint64_t> take() { return std::exchange(numbers, {}); }
  std::vector<std::uint64_t> numbers;
  std::vector<Digest> digests;
};

class DiskInbound : public ::testing::Test {
 protected:
  void push(RecordKind kind, std::uint64_t offset = 0, std::uint8_t disk = 0) {
    Bytes out;
    const Bytes data(512);
    const bool is_write = kind == RecordKind::kWrite;
    const bool has_extent = is_write || kind == RecordKind::kZero;
    append({.kind = kind,
            .disk = disk,
            .extent = {.offset = offset, .length = has_extent ? data.size() : 0},
            .data = is_write ? BytesView(data) : BytesView{}},
           out);
    ASSERT_TRUE(inbound_.push(out));
  }

  Begun begun_;
  Inbound inbound_{{{1 << 20}, {1 << 20}}, begun_};
};

TEST_F(DiskInbound, AtOnceWhereTheyDoNotTouch) {
  push(RecordKind::kWrite, 0);
  push(RecordKind::kZero, 512);
  push(RecordKind::kWrite, 0, 1);
  EXPECT_THAT(begun_.take(), ElementsAre(0, 1, 2));
}

TEST_F(DiskInbound, InOrderWhereTheyDo) {
  push(RecordKind::kWrite, 0);
  push(RecordKind::kZero, 0);
  push(RecordKind::kWrite, 0);
  EXPECT_THAT(begun_.take(), ElementsAre(0));
  inbound_.done(0);
  EXPECT_THAT(begun_.take(), ElementsAre(1));
  inbound_.done(1);
  EXPECT_THAT(begun_.take(), ElementsAre(2));
}

TEST_F(DiskInbound, MadeIsToldInOrder) {
  push(RecordKind::kWrite, 0);
  push(RecordKind::kWrite, 512);
  inbound_.done(1);
  EXPECT_EQ(inbound_.made(), 0u);
  inbound_.done(0);
  EXPECT_EQ(inbound_.made(), 2u);
}

TEST_F(DiskInbound, AFlushWaitsForAllBeforeIt) {
  push(RecordKind::kWrite, 0);
  push(RecordKind::kWrite, 0, 1);
  push(RecordKind::kFlush);
  EXPECT_THAT(begun_.take(), ElementsAre(0, 1));
  inbound_.done(1);
  EXPECT_THAT(begun_.take(), IsEmpty());
  inbound_.done(0);
  EXPECT_THAT(begun_.take(), ElementsAre(2));
}

TEST_F(DiskInbound, BoundedAtOnce) {
  for (std::uint64_t i = 0; i < 2 * Inbound::kMaxAtOnce; ++i) push(RecordKind::kWrite, i * 512);
  EXPECT_EQ(begun_.take().size(), Inbound::kMaxAtOnce);
  inbound_.done(3);
  EXPECT_THAT(begun_.take(), ElementsAre(Inbound::kMaxAtOnce));
}

// Of a hostile peer's a million may wait behind the first.
TEST_F(DiskInbound, BoundedAheadOfOneThatTakesLong) {
  for (std::uint64_t i = 0; i < 2 * Inbound::kMostAhead; ++i) push(RecordKind::kZero, i * 512);
  std::size_t begun = 0;
  for (auto numbers = begun_.take(); !numbers.empty(); numbers = begun_.take()) {
    begun += numbers.size();
    for (const std::uint64_t number : numbers) {
      if (number != 0) inbound_.done(number);
    }
  }
  EXPECT_EQ(begun, Inbound::kMostAhead);
  inbound_.done(0);
  EXPECT_FALSE(begun_.take().empty());
}

// Whatever it takes to find what it names.
TEST_F(DiskInbound, ACopyIsInOrderLikeAWrite) {
  Bytes out;
  Digest digest;
  digest.fill(std::byte{7});
  append(
      {.kind = RecordKind::kCopy, .extent = {.offset = 0, .length = kBlockBytes}, .data = digest},
      out);
  ASSERT_TRUE(inbound_.push(out));
  push(RecordKind::kWrite, 512);
  push(RecordKind::kWrite, kBlockBytes);
  push(RecordKind::kFlush);
  EXPECT_THAT(begun_.take(), ElementsAre(0));
  EXPECT_THAT(begun_.digests, ElementsAre(digest));
  inbound_.done(0);
  EXPECT_THAT(begun_.take(), ElementsAre(1, 2));
}

TEST_F(DiskInbound, EndsWhenTheEndIsMade) {
  push(RecordKind::kEnd);
  EXPECT_FALSE(inbound_.ended());
  inbound_.done(0);
  EXPECT_TRUE(inbound_.ended());
}

}  // namespace
}  // namespace godwit::disk
