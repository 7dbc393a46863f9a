#include "disk/seed.hh"

#include <gmock/gmock.h>

#include "disk/outbound.hh"

namespace godwit::disk {
namespace {

using ::testing::HasSubstr;

const std::vector<ByteCount> kDisks = {{16 * kBlockBytes}, {kBlockBytes + 512}};

Digest digest(int of) {
  Digest digest;
  digest.fill(static_cast<std::byte>(of));
  return digest;
}

TEST(DiskSeedPart, GoldenBytes) {
  Bytes out;
  append(SeedPart{.disk = 1, .offset = kBlockBytes, .digests = {digest(0xab)}}, out);
  append(SeedPart{.disk = 1, .offset = kBlockBytes + 512}, out);
  EXPECT_EQ(to_hex(out),
            "01000001000000000000000000010000abababababababababababababababab"
            "01000000000000000000000000010200");
}

TEST(DiskSeedPart, ReadsWhatWasWrittenCutAnywhere) {
  Bytes out;
  append(SeedPart{.disk = 0, .offset = 2 * kBlockBytes, .digests = {digest(1), digest(2)}}, out);
  append(SeedPart{.disk = 0, .offset = 16 * kBlockBytes}, out);
  for (const std::size_t chunk : {std::size_t{1}, std::size_t{7}, out.size()}) {
    SeedReader reader(kDisks);
    std::vector<SeedPart> parts;
    for (std::size_t at = 0; at < out.size(); at += chunk) {
      reader.push(BytesView(out).subspan(at, std::min(chunk, out.size() - at)));
      for (auto part = reader.next(); *part; part = reader.next())
        parts.push_back(std::get<SeedPart>(**part));
    }
    ASSERT_EQ(parts.size(), 2u) << chunk;
    EXPECT_EQ(parts[0].offset, 2 * kBlockBytes);
    EXPECT_EQ(parts[0].digests, (std::vector{digest(1), digest(2)}));
    EXPECT_TRUE(parts[1].digests.empty());
  }
}

std::string refusal(std::string_view hex) {
  SeedReader reader(kDisks);
  reader.push(from_hex(hex));
  const auto part = reader.next();
  return part ? "" : part.error().text;
}

TEST(DiskSeedPart, RefusesWhatIsNotOfTheseDisks) {
  EXPECT_EQ(refusal("00000000000000000000000000000000"), "");
  EXPECT_THAT(refusal("02000000000000000000000000000000"), HasSubstr("no digests of a disk"));
  EXPECT_THAT(refusal("00030000000000000000000000000000"), HasSubstr("no digests"));
  EXPECT_THAT(refusal("00000000000000010000000000000000"), HasSubstr("no digests"));
  EXPECT_THAT(refusal("00001001000000000000000000000000"), HasSubstr("no digests")) << "4097";
  EXPECT_THAT(refusal("00000000000000000000000000000200"), HasSubstr("not within")) << "in a block";
  EXPECT_THAT(refusal("00000000000000000000000000110000"), HasSubstr("not within")) << "behind it";
  EXPECT_THAT(refusal("01000003000000000000000000000000"), HasSubstr("not within"))
      << "of 2 blocks";
}

TEST(DiskSeed, AChangedBlockIsNotWhatTheTargetSaid) {
  Seed seed(kDisks[0]);
  seed.change({.offset = 5 * kBlockBytes + 512, .length = 512});
  ASSERT_TRUE(
      seed.learn({.offset = 4 * kBlockBytes, .digests = {digest(1), digest(2), digest(3)}}));
  EXPECT_EQ(seed.known_to(), 7 * kBlockBytes);
  EXPECT_TRUE(seed.digest_at(4 * kBlockBytes));
  EXPECT_FALSE(seed.digest_at(5 * kBlockBytes));
  seed.change({.offset = 6 * kBlockBytes, .length = 1});
  EXPECT_FALSE(seed.digest_at(6 * kBlockBytes));
  seed.change({.offset = 0, .length = kDisks[0].bytes});
  EXPECT_FALSE(seed.digest_at(4 * kBlockBytes));
}

TEST(DiskSeed, PartsAreInOrder) {
  Seed seed(kDisks[1]);
  EXPECT_TRUE(seed.learn({.offset = kBlockBytes, .digests = {digest(1)}}));
  EXPECT_TRUE(seed.is_known()) << "its last block is shorter";
  EXPECT_FALSE(seed.learn({.offset = 0, .digests = {digest(1)}}));
}

struct Sent final : OutboundSink {
  void read(std::uint8_t disk, Extent extent) override { reads.emplace_back(disk, extent); }
  void send(const Record& record) override {
    records.push_back(record);
    records.back().data = {};
  }
  void answer(WriteToken) override {}
  std::vector<std::pair<std::uint8_t, Extent>> reads;
  std::vector<Record> records;
};

class DiskOutboundSeeded : public ::testing::Test {
 protected:
  DiskOutboundSeeded() { outbound_.compare(kKey); }
  void read_all() {
    outbound_.pump(1 << 20, {});
    for (const auto& [disk, extent] : std::exchange(sent_.reads, {})) {
      outbound_.read_done(disk, extent, BytesView(ours_).first(extent.length));
    }
    outbound_.pump(1 << 20, {});
  }
  Digest of(BytesView block) { return crypto::KeyedHash(kKey)(block); }

  const Bytes kKey = Bytes(crypto::KeyedHash::kKeySize, std::byte{3});
  const Bytes ours_ = Bytes(Outbound::kReadBytes, std::byte{9});
  Sent sent_;
  Outbound outbound_{{kDisks[0]}, Mode::async_then_sync, sent_};
};

TEST_F(DiskOutboundSeeded, WhatIsThereDoesNotGo) {
  outbound_.mark(0, {.offset = 0, .length = 2 * kBlockBytes});
  outbound_.pump(1 << 20, {});
  EXPECT_TRUE(sent_.reads.empty()) << "nothing is known yet";
  ASSERT_TRUE(outbound_.learn(
      SeedPart{.offset = 0, .digests = {of(BytesView(ours_).first(kBlockBytes)), digest(1)}}));
  read_all();
  ASSERT_EQ(sent_.records.size(), 1u);
  EXPECT_EQ(sent_.records[0].extent, (Extent{.offset = kBlockBytes, .length = kBlockBytes}));
  EXPECT_EQ(outbound_.same_bytes(), kBlockBytes);
}

TEST_F(DiskOutboundSeeded, WhatOnlyTheTargetHasIsLookedAt) {
  ASSERT_TRUE(outbound_.learn(SeedPart{.offset = 8 * kBlockBytes, .digests = {digest(1)}}));
  read_all();
  ASSERT_EQ(sent_.records.size(), 1u);
  EXPECT_EQ(sent_.records[0].extent.offset, 8 * kBlockBytes);
}

TEST_F(DiskOutboundSeeded, TheEndWaitsUntilAllIsKnown) {
  outbound_.keep_in_step();
  outbound_.pump(1 << 20, {});
  EXPECT_FALSE(outbound_.in_step());
  outbound_.finish();
  read_all();
  EXPECT_TRUE(sent_.records.empty());
  ASSERT_TRUE(outbound_.learn(SeedPart{.offset = kDisks[0].bytes}));
  read_all();
  EXPECT_TRUE(outbound_.end_sent());
}

TEST_F(DiskOutboundSeeded, WhatNobodyAskedForIsAnError) {
  EXPECT_FALSE(outbound_.learn(SeedPart{.disk = 1, .offset = 0}));
  Outbound new_disks({kDisks[0]}, Mode::async, sent_);
  EXPECT_FALSE(new_disks.learn(SeedPart{.offset = 0}));
  EXPECT_TRUE(new_disks.all_known());
}

TEST_F(DiskOutboundSeeded, DigestsAreNotTakenWithoutEnd) {
  Outbound large({{(kMostDigestsKept + 10) * kBlockBytes}}, Mode::async, sent_);
  large.compare(kKey);
  std::uint64_t at = 0;
  while (large.wants_digests()) {
    ASSERT_TRUE(large.learn(SeedPart{.offset = at, .digests = std::vector<Digest>(1024)}));
    at += 1024 * kBlockBytes;
  }
  EXPECT_EQ(at, kMostDigestsKept * kBlockBytes);
}

}  // namespace
}  // namespace godwit::disk
