// An encoder and a decoder over the stream of a made-up guest, whose pages change as guests' do.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "codec/decoder.hh"
#include "codec/encoder.hh"
#include "codec/made_up_group.hh"
#include "codec/made_up_guest.hh"

namespace godwit::codec {
namespace {

constexpr Settings kSmall{.cache = 64 * 4096, .level = 1, .window_bits = 20};

Bytes encode(BytesView raw, const Settings& settings, std::size_t chunk, Stats* stats = nullptr,
             const Known& known = {}, const GroupOffers& group = {}) {
  Encoder encoder(settings, group);
  encoder.learn(catalogue_of(known));
  for (std::size_t at = 0; at < raw.size(); at += chunk) {
    encoder.push(raw.subspan(at, std::min(chunk, raw.size() - at)));
    if (at % 3 == 0) encoder.flush();
  }
  encoder.finish();
  if (stats != nullptr) *stats = encoder.stats();
  return encoder.take().bytes;
}

struct Decoded {
  Bytes raw;
  Result<> done;
  bool verified = false;
};
Decoded decode(BytesView coded, const Settings& settings, std::size_t chunk,
               const Known& known = {}) {
  Decoder decoder(settings, known);
  Decoded result;
  for (std::size_t at = 0; at < coded.size() && result.done; at += chunk) {
    decoder.push(coded.subspan(at, std::min(chunk, coded.size() - at)));
    Result<bool> more = true;
    while (more && *more) more = decoder.step();
    if (!more) result.done = std::unexpected(more.error());
    append(result.raw, decoder.take());
  }
  result.verified = decoder.verified();
  return result;
}

TEST(Codec, MakesTheSameBytesAgainWhateverTheChunks) {
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    MadeUpGuest guest(seed, 200);
    const Bytes raw = guest.stream(6);
    std::mt19937_64 random(seed);
    const Settings settings{.cache = (random() % 300) * 4096,
                            .level = int(seed % 4),
                            .window_bits = 20,
                            .windows = 1 + int(seed) % kMaxWindows};
    const Bytes coded = encode(raw, settings, 1 + random() % 100'000);
    const Decoded decoded = decode(coded, settings, 1 + random() % 100'000);
    ASSERT_TRUE(decoded.done) << decoded.done.error().text;
    EXPECT_EQ(decoded.raw, raw) << seed;
    EXPECT_TRUE(decoded.verified);
  }
}

TEST(Codec, AWindowThatWasNotAgreedIsRefused) {
  MadeUpGuest guest(3, 2'000);
  Settings settings{.cache = 4096, .level = 1, .window_bits = 17, .windows = 3};
  const Bytes raw = guest.stream(1);
  const Bytes coded = encode(raw, settings, raw.size());
  EXPECT_TRUE(decode(coded, settings, coded.size()).verified);
  settings.windows = 2;
  const Decoded decoded = decode(coded, settings, coded.size());
  EXPECT_FALSE(decoded.done);
  EXPECT_LT(decoded.raw.size(), 3 * kBatchBytes);
}

// What a host keeps of a guest whose memory came to be `guest`'s.
Known known_of(const MadeUpGuest& guest) {
  auto known = std::make_shared<KnownPages>(MadeUpGuest::kPage, SIZE_MAX,
                                            Bytes(crypto::KeyedHash::kKeySize, std::byte{1}));
  for (const Bytes& page : guest.memory()) known->add(page);
  known->seal();
  return {.kept = std::move(known)};
}

TEST(Codec, WhatTheHostKnowsIsNotSentAgain) {
  MadeUpGuest guest(5, 400);
  const Bytes first = encode(guest.stream(1), kSmall, 65536);
  const Known known = known_of(guest);
  const Bytes raw = guest.stream(3);  // the first round has what it has now
  Stats stats;
  const Bytes again = encode(raw, kSmall, 65536, &stats, known);
  EXPECT_LT(encode(raw, kSmall, 65536).size() - again.size(), first.size());
  EXPECT_LT(again.size(), first.size());
  EXPECT_GT(stats.by_encoding[std::to_underlying(Encoding::kKnown)].pages, 150U);
  const Decoded decoded = decode(again, kSmall, 4096, known);
  ASSERT_TRUE(decoded.done) << decoded.done.error().text;
  EXPECT_TRUE(decoded.verified && decoded.raw == raw);
  EXPECT_FALSE(decode(again, kSmall, 4096).verified);  // where nothing is known
}

// Of a host that has them elsewhere, each for as long as it is there.
class MadeUpOthers final : public OtherPages {
 public:
  explicit MadeUpOthers(const MadeUpGuest& guest) : kept_(known_of(guest).kept), reader_({kept_}) {}
  BytesView catalogue() const override { return kept_->catalogue(); }
  void expect(std::uint64_t place) override {
    expected_.insert(place);
    most_expected = std::max(most_expected, expected_.size());
  }
  Result<BytesView> page(std::uint64_t place) override {
    if (place == gone) return fail("page {} is gone", place);
    EXPECT_TRUE(expected_.extract(place)) << place;
    return reader_.page(place);
  }

  std::optional<std::uint64_t> gone;
  std::size_t most_expected = 0;

 private:
  std::multiset<std::uint64_t> expected_;
  std::shared_ptr<const KnownPages> kept_;
  KnownReader reader_;
};

TEST(Codec, OtherPagesComeBehindThoseThatAreKept) {
  MadeUpGuest guest(5, 400), early(5, 100);
  const Bytes raw = guest.stream(1);
  const auto others = std::make_shared<MadeUpOthers>(guest);
  for (const Known& known : {Known{.kept = known_of(early).kept, .others = others},
                             Known{.kept = nullptr, .others = others}}) {
    Stats stats;
    const Bytes coded = encode(raw, kSmall, 65536, &stats, known);
    EXPECT_GT(stats.by_encoding[std::to_underlying(Encoding::kKnown)].pages, 150U);
    others->gone.reset();
    const Decoded decoded = decode(coded, kSmall, 4096, known);
    ASSERT_TRUE(decoded.done) << decoded.done.error().text;
    EXPECT_TRUE(decoded.verified && decoded.raw == raw);
    EXPECT_GT(others->most_expected, 10U) << "fetched side by side";
    others->gone = 110;
    const Decoded failed = decode(coded, kSmall, 4096, known);
    ASSERT_FALSE(failed.done);
    EXPECT_EQ(failed.done.error().text, "encoded memory: page 110 is gone");
  }
}

// The names lie: of the last resort, the digest.
TEST(Codec, PagesThatAreNotWhatTheirNamesSayAreFound) {
  MadeUpGuest guest(6, 100), another(7, 100);
  const Known known = known_of(guest), other = known_of(another);
  const Bytes raw = guest.stream(1);
  const Bytes coded = encode(raw, kSmall, 65536, nullptr, known);
  const Decoded decoded = decode(coded, kSmall, 65536, other);
  EXPECT_FALSE(decoded.verified);
  EXPECT_FALSE(decoded.done);
}

TEST(Codec, EveryEncodingIsUsedAndSaves) {
  MadeUpGuest guest(7, 300);
  guest.stream(2);
  const Known known = known_of(guest);
  guest.stream(2);
  const Bytes raw = guest.stream(8);
  Stats stats;
  const Settings settings{.cache = 100 * 4096, .level = 1, .window_bits = 20};
  GroupOffers group{.index = std::make_shared<MadeUpIndex>(50)};
  encode(raw, settings, 65536, nullptr, known, group);
  group.member = 1;
  const Bytes coded = encode(raw, settings, 65536, &stats, known, group);
  for (std::size_t i = 0; i < kEncodings; ++i) {
    EXPECT_GT(stats.by_encoding[i].pages, 0U) << to_text(Encoding(i));
  }
  std::uint64_t bytes = 0, plain = 0;
  for (const auto& each : stats.by_encoding) bytes += each.raw, plain += each.plain;
  EXPECT_EQ(bytes, raw.size());
  EXPECT_EQ(plain, stats.plain);
  EXPECT_EQ(stats.raw, raw.size());
  EXPECT_LT(coded.size(), raw.size() / 2);
}

// The rest of the cache is for what comes again.
TEST(Codec, OfWhatIsSentForTheFirstTime16MiBAreKept) {
  const Settings settings{.cache = 64 << 20, .level = 1, .window_bits = 20};
  const auto kept_after = [&](int rounds) {
    Stats stats;
    encode(MadeUpGuest(23, 9000).stream(rounds), settings, 1 << 20, &stats);
    return stats.by_encoding[std::to_underlying(Encoding::kKept)].pages;
  };
  EXPECT_EQ(kept_after(1), 4096U);
  EXPECT_GT(kept_after(2), 4096U);
}

TEST(Codec, WhatIsNoQemuStreamPassesToo) {
  std::mt19937_64 random(3);
  Bytes raw(3'000'000);
  for (auto& byte : raw) byte = static_cast<std::byte>(random());
  const Decoded decoded = decode(encode(raw, kSmall, 1'700'000), kSmall, 4096);
  EXPECT_EQ(decoded.raw, raw);
  EXPECT_TRUE(decoded.verified);
  EXPECT_TRUE(decode(encode({}, kSmall, 1), kSmall, 5).verified);
}

TEST(Codec, ALongPieceIsManyBatches) {
  MadeUpGuest guest(15, 2000);
  const Bytes raw = guest.stream(2);
  ASSERT_GT(raw.size(), 2 * kMaxRaw);
  const Decoded decoded = decode(encode(raw, kSmall, raw.size()), kSmall, 1 << 20);
  ASSERT_TRUE(decoded.done) << decoded.done.error().text;
  EXPECT_TRUE(decoded.verified && decoded.raw == raw);
}

// A QEMU that its guest has taken over may write anything.
TEST(Codec, WhatNoQemuWritesPassesToo) {
  namespace format = stream::qemu_format;
  const Bytes page(4096, std::byte{7});
  Bytes raw;
  Writer writer(raw);
  writer.u32(format::kMagic).u32(format::kVersion);
  writer.u8(format::kSectionStart).u32(2).text8("ram").u32(0).u32(format::kRamVersion);
  constexpr std::uint64_t kHuge = std::uint64_t{1} << 62;
  writer.u64(2 * kHuge | format::kRamMemorySize);
  writer.text8("a").u64(kHuge).text8("b").u64(kHuge);
  const auto record = [&](std::uint64_t word, std::string_view name, BytesView contents) {
    writer.u64(word);
    if ((word & format::kRamContinue) == 0) writer.text8(name);
    writer.bytes(contents);
  };
  record(0 | format::kRamPage, "a", page);
  record((kHuge - 4096) | format::kRamPage | format::kRamContinue, "", page);
  record((std::uint64_t{1} << 40) | format::kRamPage, "a", page);
  record(0 | format::kRamZero, "b", BytesView(page).first(1));    // filled with 7
  record(0 | format::kRamPage | format::kRamContinue, "", page);  // goes on in b
  record(0 | format::kRamPage, "a", page);
  record(0 | format::kRamPage, "b", page);
  const Decoded decoded = decode(encode(raw, kSmall, 1000), kSmall, 100);
  ASSERT_TRUE(decoded.done) << decoded.done.error().text;
  EXPECT_TRUE(decoded.verified && decoded.raw == raw);
}

TEST(Codec, TellsHowFarItIs) {
  MadeUpGuest guest(9, 100);
  const Bytes raw = guest.stream(1);
  Encoder encoder(kSmall);
  encoder.push(BytesView(raw).first(raw.size() - 100));
  encoder.flush();
  const auto first = encoder.take();
  EXPECT_GT(first.raw_end, raw.size() - 100 - 2 * 4096);
  EXPECT_LE(first.raw_end, raw.size() - 100);
  encoder.push(BytesView(raw).last(100));
  encoder.finish();
  EXPECT_EQ(encoder.take().raw_end, raw.size());
  const auto marks = encoder.take_marks();
  ASSERT_FALSE(marks.empty());
  EXPECT_EQ(marks.back(), (stream::QemuMark{stream::QemuMark::Kind::kEnd, raw.size()}));
}

// They are next to nothing on the lane, and pages for the target: its word that it has a batch must
// not be about half a gigabyte of them.
TEST(Codec, ABatchHoldsFewPagesOfZeros) {
  constexpr std::uint64_t kPages = 10'000;
  const Bytes raw = stream_of_zero_pages(kPages);
  const Bytes coded = encode(raw, kSmall, raw.size());
  std::size_t batches = 0;
  for (std::size_t at = 0; at < coded.size(); ++batches) {
    const auto header = parse_header(BytesView(coded).subspan(at, BatchHeader::kSize));
    ASSERT_TRUE(header);
    at += BatchHeader::kSize + header->coded;
  }
  EXPECT_GE(batches, kPages / 2'048);  // 8 MiB of memory each
}

// Every byte in turn: an error, or at least never `verified`.
TEST(Codec, AFlippedByteIsFound) {
  MadeUpGuest guest(11, 12);
  const Bytes raw = guest.stream(3);
  for (const int level : {0, 1}) {
    const Settings settings{.cache = 64 * 4096, .level = level, .window_bits = 17};
    const Known known = known_of(MadeUpGuest(11, 12));
    Bytes coded = encode(raw, settings, 20'000, nullptr, known);
    std::mt19937_64 random(1);
    const std::size_t step = 1 + coded.size() / 1000;
    for (std::size_t at = 0; at < coded.size(); at += 1 + random() % step) {
      const std::byte was = coded[at];
      coded[at] ^= static_cast<std::byte>(1U << (random() % 8));
      const Decoded decoded = decode(coded, settings, coded.size(), known);
      EXPECT_FALSE(decoded.verified && decoded.raw != raw) << at;
      coded[at] = was;
    }
    EXPECT_TRUE(decode(coded, settings, 777, known).verified);
  }
}

TEST(Codec, FromThePackageOnNothingComesOutThatNoCheckpointConfirms) {
  MadeUpGuest guest(17, 300);
  const Bytes raw = guest.stream(3, "what the vm needs to run");
  for (const std::size_t chunk : {7UZ, 5000UZ, raw.size()}) {
    Bytes coded = encode(raw, kSmall, chunk);
    Decoder decoder(kSmall);
    Bytes out;
    std::size_t checkpointed_at = 0;
    for (std::size_t at = 0; at < coded.size(); at += 999) {
      decoder.push(BytesView(coded).subspan(at, std::min(999UZ, coded.size() - at)));
      Result<bool> more = true;
      while (more && *more) more = decoder.step();
      ASSERT_TRUE(more) << more.error().text;
      append(out, decoder.take());
      if (decoder.checkpointed() && checkpointed_at == 0) checkpointed_at = at + 999;
    }
    EXPECT_TRUE(decoder.verified() && out == raw);
    ASSERT_TRUE(checkpointed_at > 0 && checkpointed_at + 999 < coded.size());
    for (std::size_t at = checkpointed_at; at < coded.size(); at += 997) {
      const std::byte was = coded[at];
      coded[at] ^= std::byte{4};
      const Decoded decoded = decode(coded, kSmall, coded.size());
      const bool is_start =
          std::ranges::equal(decoded.raw, BytesView(raw).first(decoded.raw.size()));
      EXPECT_TRUE(is_start) << at;
      EXPECT_FALSE(decoded.verified && decoded.raw != raw) << at;
      coded[at] = was;
    }
  }
}

TEST(Codec, AStreamThatEndsEarlyIsNotVerified) {
  MadeUpGuest guest(13, 40);
  const Bytes coded = encode(guest.stream(2), kSmall, 50'000);
  for (const std::size_t less : {1UZ, 16UZ, 40UZ, coded.size() / 2}) {
    EXPECT_FALSE(decode(BytesView(coded).first(coded.size() - less), kSmall, 999).verified);
  }
}

// Page 1 of a block named "a".
Bytes page_of_twos() {
  namespace format = stream::qemu_format;
  Bytes raw;
  Writer writer(raw);
  writer.u32(format::kMagic).u32(format::kVersion);
  writer.u8(format::kSectionStart).u32(2).text8("ram").u32(0).u32(format::kRamVersion);
  writer.u64(8192 | format::kRamMemorySize).text8("a").u64(8192);
  writer.u64(4096 | format::kRamPage).text8("a").bytes(Bytes(4096, std::byte{2}));
  return raw;
}

TEST(Codec, GoldenBytesOfAKnownPage) {
  const Settings settings{.cache = 4096, .level = 0, .window_bits = 20};
  KnownPages known(4096, SIZE_MAX, Bytes(crypto::KeyedHash::kKeySize));
  known.add(Bytes(4096, std::byte{1}));
  known.add(Bytes(4096, std::byte{2}));
  known.seal();
  EXPECT_EQ(to_hex(known.catalogue().last(16)), "b810cb13563776bb8f35fc0e96d66205");
  const Bytes raw = page_of_twos();
  Encoder encoder(settings);
  encoder.learn(known.catalogue());
  encoder.push(raw);
  encoder.flush();
  const Bytes coded = encoder.take().bytes;
  // named and moved | "a" | page 1 | one | place 1 (zigzag of 1 - 0)
  EXPECT_NE(to_hex(coded).find("370161010102"), std::string::npos) << to_hex(coded);
}

TEST(Codec, GoldenBytesOfAnOfferedPageAndOfOneOfTheGroup) {
  const Settings settings{.cache = 4096, .level = 0, .window_bits = 20};
  const auto index = std::make_shared<MadeUpIndex>(9);
  const Bytes raw = page_of_twos();
  // kept, offered, named and moved | "a" | page 1 | one
  EXPECT_NE(to_hex(encode(raw, settings, 65536, nullptr, {}, {index, 3})).find("7301610101"),
            std::string::npos);
  // named and moved | "a" | page 1 | one | member 3 | number 0
  EXPECT_NE(to_hex(encode(raw, settings, 65536, nullptr, {}, {index, 5})).find("38016101010300"),
            std::string::npos);
}

TEST(Codec, GoldenBytesOfACheckpoint) {
  namespace format = stream::qemu_format;
  Encoder encoder({.cache = 4096, .level = 0, .window_bits = 20});
  Bytes raw;
  Writer writer(raw);
  writer.u32(format::kMagic).u32(format::kVersion);
  writer.u8(format::kCommand).u16(format::kCommandPackaged).u16(4).u32(2).text8("x");
  encoder.push(raw);
  EXPECT_EQ(to_hex(encoder.take().bytes),
            // opaque, 19 bytes: magic, version, command, package
            "c0000c00000000150000001500000002"
            "0013"
            "5145564d0000000308000700040000000201"
            "78"
            // XXH3-128 of these 19
            "c2000000000000100000000000000000"
            "e243ec0ef7a0b854cd97f9c917c2a199");
}

TEST(Codec, GoldenBytes) {
  const Settings settings{.cache = 4096, .level = 0, .window_bits = 20};
  Encoder encoder(settings);
  encoder.push(as_bytes("hello"));
  encoder.finish();
  EXPECT_EQ(to_hex(encoder.take().bytes),
            // header; opaque, 5, "hello"
            "c0000c00000000070000000700000002"
            "000568656c6c6f"
            // the last: XXH3-128 of "hello"
            "c1000000000000100000000000000000"
            "b5e9c1ad071b3e7fc779cfaa5e523818");
}

}  // namespace
}  // namespace godwit::codec
