// Golden bytes: docs/protocol/transfer.md shows the same ones.
#include "stream/transfer_frame.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "stream/frame_reader.hh"
#include "stream/stream_hash.hh"

namespace godwit::stream {
namespace {

using testing::HasSubstr;

const TransferId kId = TransferId::from(as_bytes("0123456789abcdef"));

TEST(TransferFrame, GoldenData) {
  FrameHeader header{
      .kind = FrameKind::kData, .stream = 1, .length = 5, .sequence = 0x0102030405060708};
  header.checksum = payload_checksum(header, as_bytes("hello"));
  Bytes bytes(kFrameHeader);
  encode(header, bytes);
  append(bytes, as_bytes("hello"));
  EXPECT_EQ(to_hex(bytes),
            "02010000000000050102030405060708"
            "91a589ee249fc76f"
            "68656c6c6f");
  EXPECT_EQ(decode_header(BytesView(bytes).first(kFrameHeader)), header);
}

TEST(TransferFrame, GoldenHello) {
  const Hello hello{.role = Role::kTarget, .transfer = kId, .incoming = {{1, false, 0x10000}}};
  Bytes bytes;
  append_frame(bytes, {.kind = FrameKind::kHello}, encode(hello));
  EXPECT_EQ(to_hex(bytes),
            "01000000000000240000000000000000"
            "6309fbfa5f007d14"
            "4757545201020001"
            "30313233343536373839616263646566"
            "010000000000000000010000");
  const auto peeked = peek_hello(bytes);
  ASSERT_TRUE(peeked && *peeked);
  EXPECT_EQ(**peeked, hello);
}

TEST(TransferFrame, GoldenAckAndEnd) {
  Bytes bytes;
  append_frame(bytes, {.kind = FrameKind::kAck, .stream = 1, .flags = kFlagEnded, .sequence = 5});
  EXPECT_EQ(to_hex(bytes),
            "03010001000000000000000000000005"
            "613b0342fe0746dd");
  bytes.clear();
  StreamHash hash;
  hash.update(as_bytes("hello"));
  append_frame(bytes, {.kind = FrameKind::kEnd, .stream = 1, .sequence = 5}, hash.digest());
  EXPECT_EQ(to_hex(bytes),
            "04010000000000100000000000000005"
            "7cf7efed32ba0620"
            "b5e9c1ad071b3e7fc779cfaa5e523818");
}

TEST(TransferFrame, PeekAsksForMoreUntilTheHelloIsWhole) {
  Bytes bytes;
  append_frame(bytes, {.kind = FrameKind::kHello}, encode(Hello{.role = Role::kSource}));
  for (std::size_t cut = 0; cut < bytes.size(); ++cut) {
    EXPECT_FALSE(peek_hello(BytesView(bytes).first(cut))) << cut;
  }
  EXPECT_TRUE(peek_hello(bytes));
}

TEST(TransferFrame, HelloOfAnotherVersionIsRefusedByName) {
  Bytes payload = encode(Hello{.role = Role::kSource, .transfer = kId});
  payload[4] = std::byte{9};
  const auto hello = decode_hello(payload);
  ASSERT_FALSE(hello);
  EXPECT_THAT(hello.error().text, HasSubstr("version 9"));
}

TEST(TransferFrame, EveryFlippedBitOfAHelloIsRefused) {
  Bytes bytes;
  append_frame(bytes, {.kind = FrameKind::kHello},
               encode(Hello{.role = Role::kSource, .transfer = kId, .incoming = {{2, true, 77}}}));
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    Bytes flipped = bytes;
    flipped[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
    const auto peeked = peek_hello(flipped);
    EXPECT_TRUE(!peeked || !*peeked) << "bit " << bit;
  }
}

TEST(TransferFrame, HeadersOutOfBoundsAreRefused) {
  Bytes bytes(kFrameHeader);
  const auto accepted = [&](FrameHeader header) {
    encode(header, bytes);
    return decode_header(bytes).has_value();
  };
  EXPECT_TRUE(accepted({.kind = FrameKind::kData, .length = kMaxDataPayload}));
  EXPECT_FALSE(accepted({.kind = FrameKind::kData, .length = kMaxDataPayload + 1}));
  EXPECT_FALSE(accepted({.kind = FrameKind::kData, .length = 0}));
  EXPECT_TRUE(accepted({.kind = FrameKind::kReset, .length = kMaxSmallPayload}));
  EXPECT_FALSE(accepted({.kind = FrameKind::kReset, .length = kMaxSmallPayload + 1}));
  EXPECT_FALSE(accepted({.kind = FrameKind{0}}));
  EXPECT_FALSE(accepted({.kind = FrameKind{8}}));
  EXPECT_FALSE(accepted({.kind = FrameKind::kAck, .flags = 2}));
}

TEST(FrameReader, CutsAnyChunksIntoTheSameFrames) {
  std::mt19937_64 random(3);
  Bytes lane;
  const Bytes payload(1000, std::byte{0x5a});
  FrameHeader data{.kind = FrameKind::kData, .stream = 1, .length = 1000};
  data.checksum = payload_checksum(data, payload);
  for (int i = 0; i < 20; ++i) {
    append_frame(lane, {.kind = FrameKind::kPing, .sequence = static_cast<std::uint64_t>(i)});
    lane.resize(lane.size() + kFrameHeader);
    encode(data, MutableBytes(lane).last(kFrameHeader));
    append(lane, payload);
  }
  for (const std::size_t most : {1ul, 7ul, 100ul, 5'000ul}) {
    FrameReader reader;
    std::size_t pings = 0, firsts = 0, lasts = 0, data_bytes = 0;
    for (BytesView rest = lane; !rest.empty();) {
      BytesView chunk = rest.first(std::min<std::size_t>(rest.size(), 1 + random() % most));
      rest = rest.subspan(chunk.size());
      for (;;) {
        const FramePart part = reader.next(chunk);
        if (part.kind == FramePart::Kind::kNothing) break;
        ASSERT_NE(part.kind, FramePart::Kind::kBad);
        pings += part.kind == FramePart::Kind::kFrame;
        firsts += part.kind == FramePart::Kind::kData && part.offset == 0;
        lasts += part.kind == FramePart::Kind::kData && part.last && part.intact;
        if (part.kind == FramePart::Kind::kData) data_bytes += part.bytes.size();
      }
    }
    EXPECT_EQ(pings, 20u);
    EXPECT_EQ(firsts, 20u);
    EXPECT_EQ(lasts, 20u);
    EXPECT_EQ(data_bytes, 20'000u);
  }
}

TEST(FrameReader, TellsOfAWrongSumHoweverThePayloadComes) {
  FrameHeader header{.kind = FrameKind::kData, .stream = 1, .length = 6};
  header.checksum = payload_checksum(header, as_bytes("memory"));
  Bytes lane(kFrameHeader);
  encode(header, lane);
  append(lane, as_bytes("mcmory"));
  for (const std::size_t cut : {lane.size(), lane.size() - 3}) {
    FrameReader reader;
    BytesView first = BytesView(lane).first(cut), rest = BytesView(lane).subspan(cut);
    FramePart part = reader.next(first);
    if (!rest.empty()) part = reader.next(rest);
    EXPECT_TRUE(part.last && !part.intact) << cut;
  }
}

TEST(StreamHash, TwoSpansSumLikeOne) {
  EXPECT_EQ(checksum(9, as_bytes("wrap"), as_bytes("ped")), checksum(9, as_bytes("wrapped")));
  EXPECT_NE(checksum(9, as_bytes("wrapped")), checksum(8, as_bytes("wrapped")));
}

// The value in xxHash's own documentation for no input with no seed.
TEST(StreamHash, DigestIsCanonicalXxh3) {
  EXPECT_EQ(to_hex(StreamHash().digest()), "99aa06d3014798d86001c324468d497f");
}

}  // namespace
}  // namespace godwit::stream
