#include "disk/catalogue.hh"

#include <gmock/gmock.h>

#include "disk/outbound.hh"

namespace godwit::disk {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::vector<ByteCount> kDisks = {{4 * kBlockBytes}};
const Bytes kKey = Bytes(crypto::KeyedHash::kKeySize, std::byte{3});

TEST(DiskCatalogue, GoldenBytes) {
  Bytes out;
  append(CataloguePart{.names = {0x01020304, 0xabababab}}, out);
  EXPECT_EQ(to_hex(out), "0001000200000000000000000000000001020304abababab");
  SeedReader reader(kDisks);
  reader.push(out);
  const auto part = reader.next();
  ASSERT_TRUE(part && *part);
  EXPECT_THAT(std::get<CataloguePart>(**part).names, ElementsAre(0x01020304, 0xabababab));
}

TEST(DiskCatalogue, GoldenBytesOfAKey) {
  KeyPart key;
  key.key.fill(std::byte{7});
  Bytes out;
  append(key, out);
  EXPECT_EQ(to_hex(out), "00020000000000000000000000000000" + to_hex(key.key));
  SeedReader reader(kDisks);
  reader.push(BytesView(out).first(out.size() - 1));
  EXPECT_FALSE(reader.next()->has_value());
  reader.push(BytesView(out).last(1));
  EXPECT_EQ(std::get<KeyPart>(**reader.next()).key, key.key);
}

std::string refusal(std::string_view hex) {
  SeedReader reader(kDisks);
  reader.push(from_hex(hex));
  const auto part = reader.next();
  return part ? "" : part.error().text;
}

TEST(DiskCatalogue, RefusesWhatIsNoPart) {
  EXPECT_EQ(refusal("00010000000000000000000000000000"), "");
  EXPECT_THAT(refusal("01010000000000000000000000000000"), HasSubstr("no names"));
  EXPECT_THAT(refusal("00010000000000010000000000000000"), HasSubstr("no names"));
  EXPECT_THAT(refusal("00010000000000000000000000000001"), HasSubstr("no names"));
  EXPECT_THAT(refusal("00014001000000000000000000000000"), HasSubstr("no names")) << "16385";
  EXPECT_THAT(refusal("00020001000000000000000000000000"), HasSubstr("no names"));
}

TEST(DiskCatalogue, IsAscendingAndBounded) {
  Catalogue catalogue;
  EXPECT_TRUE(catalogue.learn({.names = {1, 3}}));
  EXPECT_FALSE(catalogue.learn({.names = {3}}));
  Catalogue large;
  Name name = 0;
  for (std::size_t part = 0; part < kMostNames / kMostNamesOfPart; ++part) {
    std::vector<Name> names(kMostNamesOfPart);
    for (Name& each : names) each = ++name;
    ASSERT_TRUE(large.learn({.names = std::move(names)}));
  }
  EXPECT_FALSE(large.learn({.names = {++name}}));
}

Digest digest_of(Name name) {
  Digest digest{};
  to_big_endian(name, digest.data());
  return digest;
}

TEST(DiskCatalogue, OneThatIsMostlyWrongIsDropped) {
  Catalogue catalogue;
  std::vector<Name> names(2000);
  for (Name i = 0; i < names.size(); ++i) names[i] = i;
  ASSERT_TRUE(catalogue.learn({.names = names}));
  for (Name i = 0; i < 10; ++i) catalogue.was_there();
  catalogue.was_not_there(digest_of(7));
  EXPECT_FALSE(catalogue.has(digest_of(7)));
  EXPECT_TRUE(catalogue.has(digest_of(8)));
  for (Name i = 0; i < 1033; ++i) catalogue.was_not_there(digest_of(i));
  EXPECT_TRUE(catalogue.has(digest_of(1999)));
  catalogue.was_not_there(digest_of(1033));
  EXPECT_TRUE(catalogue.empty());
}

struct Sent final : OutboundSink {
  void read(std::uint8_t, Extent extent) override { reads.push_back(extent); }
  void send(const Record& record) override {
    kinds.push_back(record.kind);
    last = record;
    data = to_bytes(record.data);
  }
  void answer(WriteToken) override { ++answered; }
  std::vector<Extent> reads;
  std::vector<RecordKind> kinds;
  Record last;
  Bytes data;
  int answered = 0;
};

// A disk of four blocks, of which the second is elsewhere at the target.
class DiskOutboundElsewhere : public ::testing::Test {
 protected:
  DiskOutboundElsewhere() {
    outbound_.compare(kKey);
    EXPECT_TRUE(outbound_.learn(CataloguePart{.names = {name_of(digest_)}}));
    EXPECT_TRUE(outbound_.learn(SeedPart{.offset = kDisks[0].bytes}));
  }
  void read_all() {
    outbound_.pump(1 << 20, {});
    for (const Extent extent : std::exchange(sent_.reads, {})) {
      Bytes data(extent.length, std::byte{9});
      if (extent.offset <= kBlockBytes && extent.end() > kBlockBytes) {
        std::ranges::copy(there_,
                          data.begin() + static_cast<std::ptrdiff_t>(kBlockBytes - extent.offset));
      }
      outbound_.read_done(0, extent, data);
    }
    outbound_.pump(1 << 20, {});
  }
  void mark_all() { outbound_.mark(0, {.offset = 0, .length = kDisks[0].bytes}); }

  Bytes there_ = Bytes(kBlockBytes, std::byte{5});
  Digest digest_ = crypto::KeyedHash(kKey)(there_);
  Sent sent_;
  Outbound outbound_{kDisks, Mode::async_then_sync, sent_};
};

using enum RecordKind;

TEST_F(DiskOutboundElsewhere, WhatIsElsewhereIsNamed) {
  mark_all();
  read_all();
  EXPECT_THAT(sent_.kinds, ElementsAre(kWrite, kCopy, kWrite));
  EXPECT_EQ(outbound_.remaining_bytes(), kDisks[0].bytes + 3 * kRecordHeader);
  EXPECT_EQ(outbound_.elsewhere_bytes(), 0u) << "it may be passed over yet";
  EXPECT_TRUE(outbound_.acknowledged(3));
  EXPECT_EQ(outbound_.elsewhere_bytes(), kBlockBytes);
  EXPECT_EQ(outbound_.remaining_bytes(), 0u);
}

TEST_F(DiskOutboundElsewhere, WhatIsNotThereAnyMoreIsSent) {
  outbound_.mark(0, {.offset = kBlockBytes, .length = kBlockBytes});
  read_all();
  EXPECT_THAT(sent_.kinds, ElementsAre(kCopy));
  EXPECT_TRUE(std::ranges::equal(sent_.data, digest_));
  EXPECT_FALSE(outbound_.not_there(1));
  EXPECT_TRUE(outbound_.not_there(0));
  EXPECT_FALSE(outbound_.not_there(0)) << "once";
  EXPECT_TRUE(outbound_.acknowledged(1));
  read_all();
  EXPECT_THAT(sent_.kinds, ElementsAre(kCopy, kWrite));
  EXPECT_EQ(sent_.last.extent.offset, kBlockBytes);
  EXPECT_EQ(outbound_.elsewhere_bytes(), 0u);
}

TEST_F(DiskOutboundElsewhere, OnlyACopyIsPassedOver) {
  outbound_.mark(0, {.offset = 0, .length = kBlockBytes});
  read_all();
  EXPECT_THAT(sent_.kinds, ElementsAre(kWrite));
  EXPECT_FALSE(outbound_.not_there(0));
}

TEST_F(DiskOutboundElsewhere, ItIsInStepWhenItsCopiesAreMade) {
  outbound_.keep_in_step();
  outbound_.mark(0, {.offset = kBlockBytes, .length = kBlockBytes});
  read_all();
  EXPECT_FALSE(outbound_.in_step());
  EXPECT_TRUE(outbound_.acknowledged(1));
  EXPECT_TRUE(outbound_.in_step());
}

TEST_F(DiskOutboundElsewhere, TheEndWaitsForCopies) {
  outbound_.mark(0, {.offset = kBlockBytes, .length = kBlockBytes});
  read_all();
  outbound_.finish();
  read_all();
  EXPECT_THAT(sent_.kinds, ElementsAre(kCopy));
  EXPECT_TRUE(outbound_.not_there(0));
  EXPECT_TRUE(outbound_.acknowledged(1));
  read_all();
  EXPECT_THAT(sent_.kinds, ElementsAre(kCopy, kWrite, kEnd));
}

TEST_F(DiskOutboundElsewhere, WithTheGuestAboutToStopNothingIsLeftToTheTarget) {
  outbound_.release_writes();
  outbound_.mark(0, {.offset = kBlockBytes, .length = kBlockBytes});
  read_all();
  EXPECT_THAT(sent_.kinds, ElementsAre(kWrite));
}

TEST_F(DiskOutboundElsewhere, AWriteBehindACopyThatIsPassedOverIsInWhatIsRead) {
  outbound_.keep_in_step();
  outbound_.mark(0, {.offset = kBlockBytes, .length = kBlockBytes});
  read_all();
  there_[0] = std::byte{6};
  outbound_.written({.disk = 0, .request = 1}, kBlockBytes, BytesView(there_).first(1), {});
  EXPECT_TRUE(outbound_.not_there(0));
  EXPECT_TRUE(outbound_.acknowledged(2));
  EXPECT_EQ(sent_.answered, 1);
  read_all();
  EXPECT_THAT(sent_.kinds, ElementsAre(kCopy, kWrite, kWrite));
  EXPECT_EQ(sent_.data, there_);
}

TEST_F(DiskOutboundElsewhere, TheKeyComesBeforeAllElse) {
  EXPECT_FALSE(outbound_.learn(KeyPart{}));
  Outbound another(kDisks, Mode::async, sent_);
  EXPECT_FALSE(another.learn(KeyPart{})) << "nobody asked";
  another.compare(Bytes(crypto::KeyedHash::kKeySize));
  KeyPart key;
  std::ranges::copy(kKey, key.key.begin());
  ASSERT_TRUE(another.learn(key));
  ASSERT_TRUE(another.learn(SeedPart{.offset = kBlockBytes, .digests = {digest_}}));
  another.pump(1 << 20, {});
  ASSERT_EQ(sent_.reads.size(), 1u);
  another.read_done(0, sent_.reads[0], there_);
  EXPECT_EQ(another.same_bytes(), kBlockBytes);
}

TEST(DiskOutboundElsewhereToo, ACatalogueThatNobodyAskedForIsAnError) {
  Sent sent;
  Outbound outbound(kDisks, Mode::async, sent);
  EXPECT_FALSE(outbound.learn(CataloguePart{}));
}

}  // namespace
}  // namespace godwit::disk
