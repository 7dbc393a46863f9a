// Transmission. Golden bytes: docs/protocol/nbd.md shows the same ones.
#include "nbd/connection.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nbd/nbd_testing.hh"

namespace godwit::nbd {
namespace {

using test::Sent;
using testing::HasSubstr;

constexpr std::uint32_t kMost = static_cast<std::uint32_t>(kMaxPayload.bytes);

class NbdConnection : public testing::Test {
 protected:
  // One request that has come whole with these bytes.
  Request only(BytesView bytes) {
    while (!bytes.empty()) {
      test::feed_some(connection_, bytes);
      if (auto request = connection_.next()) {
        EXPECT_TRUE(bytes.empty());
        return *request;
      }
    }
    ADD_FAILURE() << "no request";
    return {};
  }
  Request only(const Sent& sent) { return only(test::encode(sent)); }
  // What it answers by itself.
  std::string tell(const Sent& sent) {
    test::feed(connection_, test::encode(sent));
    return out();
  }
  std::string out() { return to_hex(test::drain(connection_)); }
  static std::string simple_error(std::uint32_t error, std::uint64_t cookie) {
    Bytes bytes;
    Writer(bytes).u32(0x67446698).u32(error).u64(cookie);
    return to_hex(bytes);
  }

  Connection connection_{{test::disk(), {.name = "sealed", .size = {4096}, .read_only = true}}};
};

TEST_F(NbdConnection, GoldenWrite) {
  test::go(connection_);
  const Request request =
      only(from_hex("25609513"
                    "0001"
                    "0001"
                    "0102030405060708"
                    "0000000000010000"
                    "00000005"
                    "68656c6c6f"));
  EXPECT_EQ(request.id, RequestId{1});
  EXPECT_EQ(request.command, Command::kWrite);
  EXPECT_EQ(request.flags, kFua);
  EXPECT_EQ(request.offset, 65536u);
  EXPECT_EQ(request.length, 5u);
  EXPECT_EQ(as_text(request.payload), "hello");
  EXPECT_EQ(connection_.outstanding(), 1u);
  EXPECT_EQ(out(), "");
  connection_.reply(request.id);
  EXPECT_EQ(out(),
            "67446698"
            "00000000"
            "0102030405060708");
  EXPECT_EQ(connection_.outstanding(), 0u);
}

TEST_F(NbdConnection, GoldenReadInAStructuredReply) {
  test::go(connection_);
  const Bytes sent = from_hex(
      "25609513"
      "0004"
      "0000"
      "0102030405060708"
      "0000000000010000"
      "00000005");
  Request request = only(sent);
  EXPECT_EQ(request.command, Command::kRead);
  EXPECT_EQ(request.flags, kDf);
  EXPECT_TRUE(request.payload.empty());
  connection_.reply_read(request.id, as_bytes("hello"));
  EXPECT_EQ(out(),
            "668e33ef"
            "0001"
            "0001"
            "0102030405060708"
            "0000000d"
            "0000000000010000"
            "68656c6c6f");
  request = only(sent);
  connection_.reply(request.id, ErrorCode::kIo);
  EXPECT_EQ(out(),
            "668e33ef"
            "0001"
            "8001"
            "0102030405060708"
            "00000006"
            "00000005"
            "0000");
}

TEST_F(NbdConnection, GoldenReadInASimpleReply) {
  test::go(connection_, "disk0", false);
  const Bytes sent = from_hex(
      "25609513"
      "0000"
      "0000"
      "0102030405060708"
      "0000000000010000"
      "00000005");
  connection_.reply_read(only(sent).id, as_bytes("hello"));
  EXPECT_EQ(out(),
            "67446698"
            "00000000"
            "0102030405060708"
            "68656c6c6f");
  connection_.reply(only(sent).id, ErrorCode::kShutdown);
  EXPECT_EQ(out(),
            "67446698"
            "0000006c"
            "0102030405060708");
}

TEST_F(NbdConnection, GoldenFlushTrimAndWriteZeroes) {
  test::go(connection_);
  Request request =
      only(from_hex("25609513"
                    "0000"
                    "0003"
                    "0000000000000001"
                    "0000000000000000"
                    "00000000"));
  EXPECT_EQ(request.command, Command::kFlush);
  connection_.reply(request.id);
  request =
      only(from_hex("25609513"
                    "0000"
                    "0004"
                    "0000000000000002"
                    "0000000000100000"
                    "00010000"));
  EXPECT_EQ(request.command, Command::kTrim);
  EXPECT_EQ(request.offset, 1u << 20);
  EXPECT_EQ(request.length, 65536u);
  connection_.reply(request.id);
  request =
      only(from_hex("25609513"
                    "0003"
                    "0006"
                    "0000000000000003"
                    "0000000000100000"
                    "02000000"));
  EXPECT_EQ(request.command, Command::kWriteZeroes);
  EXPECT_EQ(request.flags, kFua | kNoHole);
  EXPECT_EQ(request.length, 32u << 20) << "as it has no payload";
  connection_.reply(request.id, ErrorCode::kNoSpace);
  EXPECT_EQ(out(), simple_error(0, 1) + simple_error(0, 2) + simple_error(28, 3));
}

TEST_F(NbdConnection, DisconnectWaitsForReplies) {
  test::go(connection_);
  const Request write = only({.command = 1, .cookie = 1, .length = 1, .payload = Bytes(1)});
  test::feed(connection_, from_hex("25609513"
                                   "0000"
                                   "0002"
                                   "0000000000000002"
                                   "0000000000000000"
                                   "00000000"));
  EXPECT_TRUE(connection_.room().empty()) << "nothing may follow";
  EXPECT_FALSE(connection_.finished());
  connection_.reply(write.id);
  EXPECT_FALSE(connection_.finished());
  EXPECT_EQ(out(), simple_error(0, 1)) << "DISC has no reply";
  EXPECT_TRUE(connection_.finished());
}

TEST_F(NbdConnection, RefusedRequestsAreAnsweredAndItGoesOn) {
  test::go(connection_);
  EXPECT_EQ(tell({.command = 5, .cookie = 1, .length = 1}), simple_error(22, 1));
  EXPECT_EQ(tell({.command = 4, .cookie = 2, .offset = test::kDiskBytes, .length = 1}),
            simple_error(22, 2));
  EXPECT_EQ(tell({.command = 6, .cookie = 3, .length = 1, .flags = 0x10}), simple_error(22, 3));
  EXPECT_EQ(tell({.command = 0, .cookie = 4, .length = kMost + 1}),
            "668e33ef"
            "0001"
            "8001"
            "0000000000000004"
            "00000006"
            "0000004b"
            "0000");
  EXPECT_EQ(connection_.outstanding(), 0u);
  const Request request = only({.command = 3, .cookie = 5});
  EXPECT_EQ(request.id, RequestId{1}) << "what is refused has no number";
}

// The payload is not taken for requests; its bytes here would be a fatal one.
TEST_F(NbdConnection, PayloadOfARefusedWriteIsSkipped) {
  test::go(connection_);
  EXPECT_EQ(tell({.command = 1,
                  .cookie = 1,
                  .offset = test::kDiskBytes - 1,
                  .length = 99,
                  .payload = Bytes(99)}),
            simple_error(28, 1));
  EXPECT_EQ(tell({.command = 1, .cookie = 2, .length = kMost + 1, .payload = Bytes(kMost + 1)}),
            simple_error(22, 2));
  EXPECT_EQ(tell({.command = 1, .cookie = 3, .length = 9, .flags = 2, .payload = Bytes(9)}),
            simple_error(22, 3));
  EXPECT_EQ(tell({.command = 1,
                  .cookie = 4,
                  .length = static_cast<std::uint32_t>(kMaxSkipped),
                  .payload = Bytes(kMaxSkipped)}),
            simple_error(22, 4));
  EXPECT_EQ(only({.command = 3, .cookie = 5}).command, Command::kFlush);
}

TEST_F(NbdConnection, ReadOnly) {
  test::go(connection_, "sealed");
  EXPECT_EQ(tell({.command = 1, .cookie = 1, .length = 9, .payload = Bytes(9)}),
            simple_error(1, 1));
  EXPECT_EQ(tell({.command = 6, .cookie = 2, .length = 9}), simple_error(1, 2));
  connection_.reply_read(only({.command = 0, .cookie = 3, .length = 4}).id, as_bytes("data"));
}

TEST_F(NbdConnection, WrongMagicEndsIt) {
  test::go(connection_);
  const Request pending = only({.command = 3, .cookie = 1});
  Bytes bytes = test::encode({.command = 3, .cookie = 2});
  bytes[0] = std::byte{0x26};
  test::feed(connection_, bytes);
  ASSERT_TRUE(connection_.failed());
  EXPECT_THAT(connection_.failed()->text, HasSubstr("magic"));
  EXPECT_TRUE(connection_.room().empty());
  connection_.reply(pending.id);  // may still come
  EXPECT_FALSE(connection_.next());
  EXPECT_FALSE(connection_.finished());
}

TEST_F(NbdConnection, WriteBeyondWhatIsSkippedEndsIt) {
  test::go(connection_);
  test::feed(connection_, test::encode({.command = 1, .length = kMaxSkipped + 1}));
  ASSERT_TRUE(connection_.failed());
  EXPECT_THAT(connection_.failed()->text, HasSubstr("33554433 bytes"));
}

TEST_F(NbdConnection, SeventeenthRequestWaits) {
  test::go(connection_);
  Bytes bytes;
  for (std::uint64_t i = 0; i < kMaxOutstanding + 1; ++i) {
    append(bytes, test::encode({.command = 3, .cookie = i}));
  }
  BytesView rest = bytes;
  test::feed_some(connection_, rest);
  ASSERT_TRUE(rest.empty());
  std::vector<RequestId> ids;
  while (const auto request = connection_.next()) ids.push_back(request->id);
  EXPECT_EQ(ids.size(), kMaxOutstanding);
  EXPECT_EQ(connection_.outstanding(), kMaxOutstanding);
  connection_.reply(ids[7]);
  const auto last = connection_.next();
  ASSERT_TRUE(last);
  EXPECT_EQ(last->id, RequestId{kMaxOutstanding + 1});
  EXPECT_EQ(out(), simple_error(0, 7));
  connection_.reply(last->id);
  EXPECT_EQ(out(), simple_error(0, kMaxOutstanding));
}

// Cookies should be unique among what is outstanding, and need not be.
TEST_F(NbdConnection, OneCookieTwice) {
  test::go(connection_);
  const Request read = only({.command = 0, .cookie = 7, .length = 3});
  const Request flush = only({.command = 3, .cookie = 7});
  connection_.reply(flush.id);
  connection_.reply_read(read.id, as_bytes("abc"));
  EXPECT_EQ(out().size(), 2 * (16 + 28 + 3));
}

TEST_F(NbdConnection, ReadsWaitForRoomInTheOutbox) {
  test::go(connection_);
  Bytes bytes;
  for (std::uint64_t i = 0; i < 8; ++i) {
    append(bytes, test::encode({.command = 0, .cookie = i, .length = kMost}));
  }
  BytesView rest = bytes;
  test::feed_some(connection_, rest);
  std::size_t answered = 0;
  const Bytes data(kMost);
  for (int round = 0; answered < 8 && round < 8; ++round) {
    std::vector<RequestId> ids;
    while (const auto request = connection_.next()) ids.push_back(request->id);
    EXPECT_EQ(ids.size(), std::min<std::size_t>(3, 8 - answered));
    for (const RequestId id : ids) connection_.reply_read(id, data);
    EXPECT_FALSE(connection_.next());
    answered += ids.size();
    EXPECT_EQ(test::drain(connection_).size(), ids.size() * (28 + kMost));
  }
  EXPECT_EQ(answered, 8u);
}

// A client that does not read its errors is not read from.
TEST_F(NbdConnection, RefusalsAreBounded) {
  test::go(connection_);
  const Request read = only({.command = 0, .cookie = 1, .length = kMost});
  const Bytes bad = test::encode({.command = 99, .cookie = 2});
  std::size_t fed = 0;
  for (BytesView bytes; bytes.empty() && fed < 3 * kOutboxBytes; fed += bad.size()) {
    bytes = bad;
    test::feed_some(connection_, bytes);
    ASSERT_FALSE(connection_.next());
  }
  EXPECT_LT(fed, 3 * kOutboxBytes);
  connection_.reply_read(read.id, Bytes(kMost));  // its room is kept
}

TEST_F(NbdConnection, MisuseOfOursAborts) {
  test::go(connection_);
  const Request read = only({.command = 0, .cookie = 1, .length = 3});
  EXPECT_DEATH(connection_.reply(read.id), "without them");
  EXPECT_DEATH(connection_.reply_read(read.id, as_bytes("ab")), "2 bytes for a request of 3");
  connection_.reply_read(read.id, as_bytes("abc"));
  EXPECT_DEATH(connection_.reply(read.id, ErrorCode::kIo), "no request 1");
  EXPECT_DEATH(connection_.reply({}, ErrorCode::kIo), "number");
  EXPECT_DEATH(Connection({test::disk(), test::disk()}), "two exports");
  EXPECT_DEATH(Connection({{.size = {4096}, .minimum_block = {3}}}), "block of 3");
  EXPECT_DEATH(Connection({{.size = {4095}, .minimum_block = {2}}}), "4095 bytes");
}

}  // namespace
}  // namespace godwit::nbd
