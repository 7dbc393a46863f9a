#include "session/frame.hh"

#include <gtest/gtest.h>

#include <random>

#include "session/json_body.hh"

#include <nlohmann/json.hpp>

namespace godwit::session {
namespace {

// Gives its bytes in pieces of `step`, then nothing.
class Pieces final : public os::ByteStream {
 public:
  Pieces(Bytes bytes, std::size_t step) : bytes_(std::move(bytes)), step_(step) {}
  void start(Events) override {}
  std::size_t read(MutableBytes into) override {
    if (std::exchange(pause_, !pause_)) return 0;  // every other time: not yet
    const std::size_t size = std::min({into.size(), step_, bytes_.size() - at_});
    std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(at_), size, into.begin());
    at_ += size;
    return size;
  }
  std::size_t write(BytesView) override { return 0; }
  void finish() override {}
  std::string peer() const override { return "pieces"; }
  std::size_t left() const { return bytes_.size() - at_; }

 private:
  Bytes bytes_;
  std::size_t step_;
  std::size_t at_ = 0;
  bool pause_ = false;
};

std::string encoded(const Frame& frame) {
  Bytes out;
  encode(frame, out);
  return to_hex(out);
}

// These bytes are the protocol: docs/protocol/session.md shows the same. A change here needs a new
// version.
TEST(Frame, GoldenBytes) {
  EXPECT_EQ(encoded({FrameKind::request, 7, "vm.prepare", as_bytes("{}")}),
            "00000019"
            "01"
            "01"
            "0000"
            "0000000000000007"
            "0a"
            "766d2e70726570617265"
            "7b7d");
  EXPECT_EQ(encoded({FrameKind::reply, 7, "", as_bytes("null")}),
            "00000011"
            "01"
            "02"
            "0000"
            "0000000000000007"
            "00"
            "6e756c6c");
  EXPECT_EQ(encoded({FrameKind::error, 7, "", as_bytes("no")}),
            "0000000f"
            "01"
            "03"
            "0000"
            "0000000000000007"
            "00"
            "6e6f");
  EXPECT_EQ(encoded({FrameKind::push, 0, "wire", from_hex("00ff")}),
            "00000013"
            "01"
            "04"
            "0000"
            "0000000000000000"
            "04"
            "77697265"
            "00ff");
  EXPECT_EQ(encoded({FrameKind::ping, 0x0102030405060708, "", {}}),
            "0000000d"
            "01"
            "05"
            "0000"
            "0102030405060708"
            "00");
  EXPECT_EQ(encoded({FrameKind::pong, 1, "", {}}),
            "0000000d"
            "01"
            "06"
            "0000"
            "0000000000000001"
            "00");
}

TEST(Frame, WhatIsWrittenIsRead) {
  std::mt19937 random(3);
  Bytes stream;
  std::vector<std::tuple<FrameKind, std::uint64_t, std::string, Bytes>> sent;
  for (int i = 0; i < 300; ++i) {
    const auto kind = static_cast<FrameKind>(1 + random() % 6);
    const bool named = kind == FrameKind::request || kind == FrameKind::push;
    const bool full = kind != FrameKind::ping && kind != FrameKind::pong;
    std::string method(named ? 1 + random() % kMaxMethod : 0, 'a');
    Bytes body(full ? random() % (i % 50 == 0 ? 200'000 : 300) : 0);
    for (auto& byte : body) byte = static_cast<std::byte>(random());
    encode({kind, random(), method, body}, stream);
    sent.emplace_back(kind,
                      from_big_endian<std::uint64_t>(stream.data() + stream.size() - body.size() -
                                                     method.size() - 9),
                      method, body);
  }
  Pieces pieces(stream, 1 + random() % 5000);
  FrameReader reader;
  for (const auto& [kind, id, method, body] : sent) {
    auto frame = reader.next(pieces);
    while (frame && !*frame) frame = reader.next(pieces);
    ASSERT_TRUE(frame) << frame.error().text;
    EXPECT_EQ((*frame)->kind, kind);
    EXPECT_EQ((*frame)->id, id);
    EXPECT_EQ((*frame)->method, method);
    EXPECT_TRUE(std::ranges::equal((*frame)->body, body));
  }
}

TEST(Frame, ReaderTakesNotOneByteMore) {
  Bytes stream;
  encode({FrameKind::push, 0, "relay.leg", as_bytes("{}")}, stream);
  append(stream, as_bytes("what follows is not a frame"));
  Pieces pieces(stream, 1000);
  FrameReader reader;
  auto frame = reader.next(pieces);
  while (frame && !*frame) frame = reader.next(pieces);
  ASSERT_TRUE(frame);
  EXPECT_EQ(pieces.left(), as_bytes("what follows is not a frame").size());
}

TEST(Frame, UnknownIsRefused) {
  const auto refused = [](std::string_view hex) { return !decode(from_hex(hex)); };
  EXPECT_FALSE(
      refused("01"
              "04"
              "0000"
              "0000000000000000"
              "01"
              "61"));
  EXPECT_TRUE(
      refused("02"
              "04"
              "0000"
              "0000000000000000"
              "01"
              "61"));  // version
  EXPECT_TRUE(
      refused("01"
              "00"
              "0000"
              "0000000000000000"
              "01"
              "61"));  // kind
  EXPECT_TRUE(
      refused("01"
              "07"
              "0000"
              "0000000000000000"
              "01"
              "61"));  // kind
  EXPECT_TRUE(
      refused("01"
              "04"
              "0001"
              "0000000000000000"
              "01"
              "61"));  // reserved
  EXPECT_TRUE(
      refused("01"
              "04"
              "0000"
              "0000000000000000"
              "00"));  // push without method
  EXPECT_TRUE(
      refused("01"
              "04"
              "0000"
              "0000000000000000"
              "01"
              "0a"));  // method not printable
  EXPECT_TRUE(
      refused("01"
              "04"
              "0000"
              "0000000000000000"
              "05"
              "61"));  // method cut short
  EXPECT_TRUE(
      refused("01"
              "02"
              "0000"
              "0000000000000000"
              "01"
              "61"));  // reply with method
  EXPECT_TRUE(
      refused("01"
              "05"
              "0000"
              "0000000000000000"
              "00"
              "61"));  // ping with body
  EXPECT_TRUE(
      refused("01"
              "04"
              "0000"
              "00000000000000"));  // cut short
}

TEST(Frame, OversizedIsRefusedBeforeItIsHeld) {
  Bytes stream;
  Writer(stream).u32(0xffffffff);
  Pieces pieces(stream, 10);
  FrameReader reader;
  auto frame = reader.next(pieces);
  while (frame && !*frame) frame = reader.next(pieces);
  ASSERT_FALSE(frame);
  EXPECT_EQ(frame.error().text, "message of 4294967295 bytes; 1048576 is the most");
}

TEST(JsonBody, IsBoundedInDepth) {
  EXPECT_TRUE(parse_json_body(as_bytes(R"({"a":[1,"]]]][[[[",{}]})")));
  EXPECT_FALSE(parse_json_body(as_bytes(std::string(100'000, '['))));
  EXPECT_FALSE(parse_json_body(as_bytes(std::string(65, '[') + std::string(65, ']'))));
  EXPECT_TRUE(parse_json_body(as_bytes(std::string(64, '[') + std::string(64, ']'))));
  EXPECT_FALSE(parse_json_body(as_bytes("{\"a\":")));
  EXPECT_FALSE(parse_json_body({}));
  EXPECT_EQ(printable("a\x1b[31mb\n"), "a?[31mb?");
  EXPECT_EQ(json_text("\xff"), "\"\xEF\xBF\xBD\"");
}

}  // namespace
}  // namespace godwit::session
