// The parser on what QEMU really writes, captured here and now, in pre-copy and in post-copy.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "base/result.hh"
#include "qemu_capture.hh"
#include "stream/qemu_parser.hh"
#include "stream/qemu_rebuild.hh"
#include "stream/transfer_pair.hh"

namespace godwit::stream {
namespace {

using Kind = QemuMark::Kind;

const test::CapturedMigration& captured(test::CaptureMode mode) {
  static std::map<test::CaptureMode, test::CapturedMigration> done;
  if (!done.contains(mode)) done[mode] = test::capture_migration(mode);
  return done[mode];
}

std::uint64_t position_of(const test::Rebuild& rebuild, Kind kind) {
  const auto found = std::ranges::find(rebuild.marks, kind, &QemuMark::kind);
  EXPECT_NE(found, rebuild.marks.end()) << to_text(kind);
  return found == rebuild.marks.end() ? 0 : found->position;
}

class QemuStream : public testing::TestWithParam<test::CaptureMode> {
 protected:
  void SetUp() override {
    if (!test::has_qemu()) GTEST_SKIP() << "qemu-system-x86_64 is not installed";
  }
  const Bytes& stream() { return captured(GetParam()).stream; }
};

TEST_P(QemuStream, IsReproducedBitByBitWhateverTheChunks) {
  const test::Rebuild whole = test::rebuild(stream());
  EXPECT_TRUE(whole.bytes == stream());
  std::mt19937_64 random(7);
  for (const std::size_t most : {1ul, 3ul, 100ul, 5'000ul, 70'000ul, 1'000'000ul}) {
    const test::Rebuild chunked = test::rebuild(stream(), most, random);
    EXPECT_TRUE(chunked.bytes == stream()) << "chunks up to " << most;
    EXPECT_EQ(chunked.misplaced_marks, 0);
    EXPECT_EQ(chunked.marks, whole.marks) << "chunks up to " << most;
    EXPECT_EQ(chunked.stats.pages, whole.stats.pages);
    EXPECT_LE(chunked.most_held, (64u << 10) + 8 + 256);
  }
}

TEST_P(QemuStream, PagesAreFoundAsPages) {
  const test::Rebuild whole = test::rebuild(stream());
  const std::uint64_t page_bytes = whole.stats.pages * 4096;
  EXPECT_GE(whole.stats.ram_bytes, 32u << 20);
  EXPECT_GE(whole.stats.pages + whole.stats.zero_pages, (32u << 20) / 4096);
  EXPECT_GE(whole.stats.pages, 128u * 3);
  // What is not a page is headers and devices: a small rest.
  EXPECT_LT(whole.stats.opaque_bytes, 200'000u);
  EXPECT_GT(page_bytes, stream().size() / 2);
}

TEST_P(QemuStream, SurvivesTruncationAtEveryKindOfPlace) {
  std::mt19937_64 random(11);
  for (int i = 0; i < 60; ++i) {
    const std::size_t cut = i < 30 ? random() % 2000 : random() % stream().size();
    const Bytes part(stream().begin(), stream().begin() + static_cast<std::ptrdiff_t>(cut));
    EXPECT_TRUE(test::rebuild(part, 9'000, random).bytes == part) << "cut at " << cut;
  }
}

TEST_P(QemuStream, SurvivesCorruption) {
  std::mt19937_64 random(13);
  for (int i = 0; i < 60; ++i) {
    Bytes corrupt = stream();
    for (int hits = 0; hits < 5; ++hits) {
      const std::size_t range = i < 30 ? 2000 : corrupt.size();
      corrupt[random() % range] = static_cast<std::byte>(random());
    }
    EXPECT_TRUE(test::rebuild(corrupt, 9'000, random).bytes == corrupt) << "round " << i;
  }
}

// Both directions of the capture, over a lane that dies again and again.
TEST_P(QemuStream, CrossesATransferWhoseLaneDies) {
  const test::CapturedMigration& capture = captured(GetParam());
  test::TransferPair pair(17);
  BytesView memory = capture.stream, answers = capture.return_path;
  bool connected = false;
  for (int round = 0; !pair.source.finished() || !pair.target.finished(); ++round) {
    ASSERT_LT(round, 100'000);
    if (!connected) pair.connect();
    connected = true;
    memory = memory.subspan(pair.source.offer(kMemoryStream, memory));
    answers = answers.subspan(pair.target.offer(kReturnPathStream, answers));
    if (memory.empty()) pair.source.end(kMemoryStream);
    if (answers.empty()) pair.target.end(kReturnPathStream);
    pair.step();
    pair.advance(milliseconds(1));
    if (pair.random() % 15 == 0) pair.cut(), connected = false;
  }
  EXPECT_TRUE(pair.target_sink.taken_bytes[kMemoryStream] == capture.stream);
  EXPECT_TRUE(pair.source_sink.taken_bytes[kReturnPathStream] == capture.return_path);
  EXPECT_GT(pair.source.stats().lanes, 3u);
}

INSTANTIATE_TEST_SUITE_P(Captured, QemuStream,
                         testing::Values(test::CaptureMode::kPreCopy, test::CaptureMode::kPostCopy),
                         [](const auto& mode) {
                           return mode.param == test::CaptureMode::kPreCopy ? "PreCopy"
                                                                            : "PostCopy";
                         });

TEST(QemuStreamMarks, OfPreCopyComeInOrder) {
  if (!test::has_qemu()) GTEST_SKIP() << "qemu-system-x86_64 is not installed";
  const auto& capture = captured(test::CaptureMode::kPreCopy);
  const test::Rebuild whole = test::rebuild(capture.stream);
  const std::uint64_t began = position_of(whole, Kind::kRamBegan);
  const std::uint64_t round = position_of(whole, Kind::kRoundEnded);
  const std::uint64_t final_began = position_of(whole, Kind::kFinalRamBegan);
  const std::uint64_t final_ended = position_of(whole, Kind::kFinalRamEnded);
  const std::uint64_t device = position_of(whole, Kind::kFirstDevice);
  const std::uint64_t end = position_of(whole, Kind::kEnd);
  EXPECT_LT(began, round);
  EXPECT_LT(round, final_began);
  EXPECT_LT(final_began, final_ended);
  EXPECT_EQ(final_ended, device);
  EXPECT_LT(device, end);
  EXPECT_EQ(end, capture.stream.size());
  // QEMU counts its first scan and the sync at the stop too; the stream shows the wraps between.
  EXPECT_GE(whole.stats.rounds, 2u);
  EXPECT_LE(whole.stats.rounds, static_cast<std::uint64_t>(capture.rounds) + 1);
}

TEST(QemuStreamMarks, OfPostCopyShowThePackageAndPagesBehindIt) {
  if (!test::has_qemu()) GTEST_SKIP() << "qemu-system-x86_64 is not installed";
  const auto& capture = captured(test::CaptureMode::kPostCopy);
  const test::Rebuild whole = test::rebuild(capture.stream);
  const std::uint64_t package = position_of(whole, Kind::kFirstDevice);
  const std::uint64_t package_end = position_of(whole, Kind::kPackageEnded);
  EXPECT_LT(package, package_end);
  EXPECT_GT(std::ranges::count_if(whole.page_positions,
                                  [&](std::uint64_t at) { return at >= package_end; }),
            10);
  EXPECT_LT(package_end, position_of(whole, Kind::kFinalRamEnded));
  EXPECT_GT(capture.return_path.size(), 8u);
}

}  // namespace
}  // namespace godwit::stream
