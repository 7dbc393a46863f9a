// Golden bytes: docs/protocol/nbd.md shows the same ones.
#include "nbd/handshake.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nbd/nbd_testing.hh"

namespace godwit::nbd {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

class NbdHandshake : public testing::Test {
 protected:
  std::string tell(BytesView bytes) {
    test::feed(connection_, bytes);
    return to_hex(test::drain(connection_));
  }
  // To an option that has one reply without data.
  std::string bare_reply(std::uint32_t option, std::uint32_t type) {
    Bytes bytes;
    Writer(bytes).u64(0x3e889045565a9).u32(option).u32(type).u32(0);
    return to_hex(bytes);
  }
  void greet() {
    test::feed(connection_, test::client_flags());
    test::drain(connection_);
  }
  Connection connection_{{test::disk(), {.name = "", .size = {4096}, .read_only = true}}};
};

// What QEMU 7.2 sends as it opens nbd://?socket= with export=disk0: up to transmission.
TEST_F(NbdHandshake, GoldenOfQemu) {
  EXPECT_EQ(to_hex(test::drain(connection_)),
            "4e42444d41474943"
            "49484156454f5054"
            "0003");
  EXPECT_EQ(tell(from_hex("00000003")), "");
  EXPECT_EQ(tell(from_hex("49484156454f5054"
                          "00000008"
                          "00000000")),
            "0003e889045565a9"
            "00000008"
            "00000001"
            "00000000");
  // SET_META_CONTEXT disk0 base:allocation
  EXPECT_EQ(tell(from_hex("49484156454f5054"
                          "0000000a"
                          "00000020"
                          "000000056469736b30"
                          "00000001"
                          "0000000f626173653a616c6c6f636174696f6e")),
            "0003e889045565a9"
            "0000000a"
            "80000001"
            "00000000");
  EXPECT_EQ(connection_.chosen(), nullptr);
  EXPECT_EQ(tell(from_hex("49484156454f5054"
                          "00000007"
                          "0000000d"
                          "000000056469736b30"
                          "00010003")),
            // 64 MiB; flags, flush, FUA, trim, write zeroes, DF
            "0003e889045565a9"
            "00000007"
            "00000003"
            "0000000c"
            "0000"
            "0000000004000000"
            "00ed"
            // blocks of 1 and 4,096 bytes, payloads of 1 MiB
            "0003e889045565a9"
            "00000007"
            "00000003"
            "0000000e"
            "0003"
            "00000001"
            "00001000"
            "00100000"
            "0003e889045565a9"
            "00000007"
            "00000001"
            "00000000");
  ASSERT_NE(connection_.chosen(), nullptr);
  EXPECT_EQ(*connection_.chosen(), test::disk());
}

TEST_F(NbdHandshake, NameIsToldWhereItIsAskedFor) {
  greet();
  const std::string reply = tell(test::option(6, test::info_data("disk0", {1, 99, 3})));
  EXPECT_THAT(reply, HasSubstr("0003e889045565a90000000600000003000000070001"
                               "6469736b30"));
  EXPECT_THAT(reply, EndsWith(bare_reply(6, 1)));
  EXPECT_EQ(connection_.chosen(), nullptr) << "INFO does not choose";
  // DF comes with structured replies only.
  EXPECT_THAT(reply, HasSubstr("0000000004000000"
                               "006d"));
}

TEST_F(NbdHandshake, EveryExportIsListed) {
  greet();
  EXPECT_EQ(tell(test::option(3)),
            "0003e889045565a9"
            "00000003"
            "00000002"
            "00000009"
            "000000056469736b30"
            "0003e889045565a9"
            "00000003"
            "00000002"
            "00000004"
            "00000000" +
                bare_reply(3, 1));
}

TEST_F(NbdHandshake, ExportName) {
  test::drain(connection_);
  test::feed(connection_, test::client_flags());
  EXPECT_EQ(tell(test::option(1, as_bytes("disk0"))), "0000000004000000006d");
  EXPECT_EQ(*connection_.chosen(), test::disk());
}

// The export of no name is the default; it is read-only.
TEST_F(NbdHandshake, ExportNameOfAClientThatWantsZeroes) {
  test::drain(connection_);
  test::feed(connection_, test::client_flags(1));
  EXPECT_EQ(tell(test::option(1)), "0000000000001000000f" + std::string(248, '0'));
}

TEST_F(NbdHandshake, FastZeroIsOfferedWhereTheExportHasIt) {
  Connection connection({{.name = "z", .size = {4096}, .fast_zero = true}});
  test::drain(connection);
  test::feed(connection, test::client_flags());
  test::feed(connection, test::option(1, as_bytes("z")));
  EXPECT_EQ(to_hex(test::drain(connection)), "0000000000001000086d");
}

TEST_F(NbdHandshake, AbortIsAcknowledgedAndIsTheEnd) {
  greet();
  test::feed(connection_, test::option(2, as_bytes("whatever")));
  EXPECT_FALSE(connection_.finished()) << "the reply is not sent yet";
  EXPECT_EQ(to_hex(test::drain(connection_)), bare_reply(2, 1));
  EXPECT_TRUE(connection_.finished());
  EXPECT_TRUE(connection_.room().empty());
}

TEST_F(NbdHandshake, WhatWeDoNotSpeakIsUnsupported) {
  greet();
  // PEEK_EXPORT, STARTTLS, LIST_META_CONTEXT, SET_META_CONTEXT, EXTENDED_HEADERS, and no option.
  for (const std::uint32_t option : {4u, 5u, 9u, 10u, 11u, 0u, 0xffffffffu}) {
    EXPECT_EQ(tell(test::option(option, as_bytes("data"))), bare_reply(option, 0x80000001));
  }
  test::choose(connection_);  // and it goes on
}

TEST_F(NbdHandshake, UnknownExport) {
  greet();
  for (const std::uint32_t option : {6u, 7u}) {
    EXPECT_EQ(tell(test::option(option, test::info_data("disk1"))), bare_reply(option, 0x80000006));
  }
  EXPECT_EQ(connection_.chosen(), nullptr);
}

TEST_F(NbdHandshake, MalformedOptionsAreInvalid) {
  greet();
  EXPECT_EQ(tell(test::option(3, as_bytes("x"))), bare_reply(3, 0x80000003));
  EXPECT_EQ(tell(test::option(8, as_bytes("x"))), bare_reply(8, 0x80000003));
  Bytes data = test::info_data("disk0", {1, 3});
  data.push_back({});  // one byte too many, and then any number too few
  for (; !data.empty(); data.pop_back()) {
    if (data == test::info_data("disk0", {1, 3})) continue;
    EXPECT_EQ(tell(test::option(7, data)), bare_reply(7, 0x80000003)) << data.size();
  }
  EXPECT_EQ(tell(test::option(7, from_hex("ffffffff0000"))), bare_reply(7, 0x80000003));
  EXPECT_EQ(connection_.chosen(), nullptr);
  EXPECT_FALSE(connection_.failed());
}

TEST_F(NbdHandshake, LongOptionsAreSkipped) {
  greet();
  EXPECT_EQ(tell(test::option(7, Bytes(kMaxOptionData + 1))), bare_reply(7, 0x80000009));
  EXPECT_EQ(tell(test::option(5, Bytes(kMaxOptionData))), bare_reply(5, 0x80000001));
  EXPECT_EQ(tell(test::option(10, Bytes(3 << 20))), bare_reply(10, 0x80000009));
  test::choose(connection_);
}

TEST_F(NbdHandshake, RepliesWaitForAClientThatDoesNotRead) {
  greet();
  const Bytes list = test::option(3);
  std::size_t fed = 0;
  for (; fed < 2 * kOutboxBytes; fed += list.size()) {
    BytesView bytes = list;
    test::feed_some(connection_, bytes);
    ASSERT_FALSE(connection_.next());
    if (!bytes.empty()) break;  // no room
  }
  EXPECT_LT(fed, 2 * kOutboxBytes);
  const std::size_t first = test::drain(connection_).size();
  EXPECT_LE(first, kOutboxBytes);
  ASSERT_FALSE(connection_.next());
  EXPECT_FALSE(test::drain(connection_).empty());
}

struct Fatal {
  const char* name;
  Bytes bytes;
  const char* text;
};
class NbdHandshakeFatal : public testing::TestWithParam<Fatal> {};

TEST_P(NbdHandshakeFatal, EndsTheConnection) {
  Connection connection({test::disk()});
  test::feed(connection, GetParam().bytes);
  ASSERT_TRUE(connection.failed());
  EXPECT_THAT(connection.failed()->text, HasSubstr(GetParam().text));
  EXPECT_TRUE(connection.room().empty());
  EXPECT_FALSE(connection.next());
  EXPECT_FALSE(connection.finished());
}

Bytes after_flags(Bytes bytes) {
  Bytes all = test::client_flags();
  append(all, bytes);
  return all;
}
Bytes option_header(std::uint32_t number, std::uint32_t length) {
  Bytes bytes;
  Writer(bytes).u64(kOptionMagic).u32(number).u32(length);
  return after_flags(bytes);
}
INSTANTIATE_TEST_SUITE_P(
    All, NbdHandshakeFatal,
    testing::Values(Fatal{"Flags", test::client_flags(4), "client flags 0x4"},
                    Fatal{"Magic",
                          after_flags(from_hex("4948415645"
                                               "4f505500000003"
                                               "00000000")),
                          "newstyle"},
                    Fatal{"UnknownName", after_flags(test::option(1, as_bytes("disk"))), "export"},
                    Fatal{"LongName", option_header(1, kMaxOptionData + 1), "8193 bytes"},
                    Fatal{"TooLong", option_header(7, kMaxSkipped + 1), "33554433 bytes"}),
    [](const auto& tested) { return tested.param.name; });

}  // namespace
}  // namespace godwit::nbd
