#include "nbd/request.hh"

#include <gtest/gtest.h>

#include "nbd/nbd_testing.hh"

namespace godwit::nbd {
namespace {

constexpr std::uint64_t kSize = 1 << 20;
constexpr std::uint32_t kBlock = 512;
constexpr auto kMost = static_cast<std::uint32_t>(kMaxPayload.bytes);

Export disk() { return {.name = "d", .size = {kSize}, .minimum_block = {kBlock}}; }

ErrorCode judged(Command command, std::uint64_t offset, std::uint32_t length,
                 std::uint16_t flags = 0, const Export& of = disk(), bool structured = true) {
  return judge({.flags = flags, .command = command, .offset = offset, .length = length}, of,
               structured);
}

TEST(NbdRequest, Golden) {
  const Bytes bytes = from_hex(
      "25609513"
      "0001"
      "0001"
      "0102030405060708"
      "0000000000010000"
      "00001000");
  const RequestHeader header{.flags = kFua,
                             .command = Command::kWrite,
                             .cookie = 0x0102030405060708,
                             .offset = 65536,
                             .length = 4096};
  EXPECT_EQ(decode_request(bytes), header);
  for (std::size_t i = 0; i < 4; ++i) {
    Bytes wrong = bytes;
    wrong[i] ^= std::byte{0x10};
    EXPECT_FALSE(decode_request(wrong)) << i;
  }
}

TEST(NbdRequest, WithinTheDisk) {
  for (const Command command :
       {Command::kRead, Command::kWrite, Command::kTrim, Command::kWriteZeroes}) {
    const bool is_write = command == Command::kWrite || command == Command::kWriteZeroes;
    const ErrorCode outside = is_write ? ErrorCode::kNoSpace : ErrorCode::kInvalid;
    EXPECT_EQ(judged(command, 0, kBlock), ErrorCode::kNone);
    EXPECT_EQ(judged(command, 0, kSize), ErrorCode::kNone);
    EXPECT_EQ(judged(command, kSize - kBlock, kBlock), ErrorCode::kNone);
    EXPECT_EQ(judged(command, kSize, kBlock), outside);
    EXPECT_EQ(judged(command, kSize - kBlock, 2 * kBlock), outside);
    EXPECT_EQ(judged(command, ~0ull - kBlock + 1, kBlock), outside) << "wraps to 0";
    EXPECT_EQ(judged(command, ~0ull, 1), outside);
    EXPECT_EQ(judged(command, 1, kBlock), ErrorCode::kInvalid);
    EXPECT_EQ(judged(command, kBlock, kBlock + 1), ErrorCode::kInvalid);
    EXPECT_EQ(judged(command, kBlock / 2, kBlock / 2), ErrorCode::kInvalid);
    EXPECT_EQ(judged(command, 0, 0), ErrorCode::kInvalid) << "of nothing";
  }
}

TEST(NbdRequest, OnlyPayloadsAreBounded) {
  const Export large{.name = "l", .size = {1ull << 40}};
  EXPECT_EQ(judged(Command::kWrite, 0, kMost, 0, large), ErrorCode::kNone);
  EXPECT_EQ(judged(Command::kWrite, 0, kMost + 1, 0, large), ErrorCode::kInvalid);
  EXPECT_EQ(judged(Command::kRead, 0, kMost, 0, large), ErrorCode::kNone);
  EXPECT_EQ(judged(Command::kRead, 0, kMost + 1, 0, large), ErrorCode::kOverflow);
  EXPECT_EQ(judged(Command::kRead, 0, kMost + 1, 0, large, false), ErrorCode::kInvalid);
  EXPECT_EQ(judged(Command::kTrim, 1ull << 39, ~0u, 0, large), ErrorCode::kNone);
  EXPECT_EQ(judged(Command::kWriteZeroes, 1ull << 39, ~0u, 0, large), ErrorCode::kNone);
}

TEST(NbdRequest, Flags) {
  Export fast = disk();
  fast.fast_zero = true;
  struct Case {
    Command command;
    unsigned allowed, allowed_fast, allowed_simple;
  };
  for (const Case& each :
       {Case{Command::kRead, kFua | kDf, kFua | kDf, kFua}, Case{Command::kWrite, kFua, kFua, kFua},
        Case{Command::kTrim, kFua, kFua, kFua},
        Case{Command::kWriteZeroes, kFua | kNoHole, kFua | kNoHole | kFastZero, kFua | kNoHole},
        Case{Command::kFlush, kFua, kFua, kFua}}) {
    const std::uint32_t length = each.command == Command::kFlush ? 0 : kBlock;
    for (int bit = 0; bit < 16; ++bit) {
      const auto flag = static_cast<std::uint16_t>(1u << bit);
      const auto expected = [flag](unsigned allowed) {
        return (allowed & flag) != 0 ? ErrorCode::kNone : ErrorCode::kInvalid;
      };
      EXPECT_EQ(judged(each.command, 0, length, flag), expected(each.allowed)) << bit;
      EXPECT_EQ(judged(each.command, 0, length, flag, fast), expected(each.allowed_fast)) << bit;
      EXPECT_EQ(judged(each.command, 0, length, flag, disk(), false), expected(each.allowed_simple))
          << bit;
    }
  }
}

TEST(NbdRequest, ReadOnly) {
  Export sealed = disk();
  sealed.read_only = true;
  EXPECT_EQ(judged(Command::kWrite, 0, kBlock, 0, sealed), ErrorCode::kNotPermitted);
  EXPECT_EQ(judged(Command::kTrim, 0, kBlock, 0, sealed), ErrorCode::kNotPermitted);
  EXPECT_EQ(judged(Command::kWriteZeroes, 0, kBlock, 0, sealed), ErrorCode::kNotPermitted);
  EXPECT_EQ(judged(Command::kRead, 0, kBlock, 0, sealed), ErrorCode::kNone);
  EXPECT_EQ(judged(Command::kFlush, 0, 0, 0, sealed), ErrorCode::kNone);
}

TEST(NbdRequest, Commands) {
  EXPECT_EQ(judged(Command::kFlush, 0, 0), ErrorCode::kNone);
  EXPECT_EQ(judged(Command::kFlush, kBlock, 0), ErrorCode::kInvalid);
  EXPECT_EQ(judged(Command::kFlush, 0, kBlock), ErrorCode::kInvalid);
  EXPECT_EQ(judged(Command::kDisconnect, 1, 1, 0xffff), ErrorCode::kNone) << "it has no reply";
  // CACHE, BLOCK_STATUS, RESIZE, and none.
  for (const std::uint16_t number : std::initializer_list<std::uint16_t>{5, 7, 8, 9, 0xffff}) {
    EXPECT_EQ(judged(Command{number}, 0, kBlock), ErrorCode::kInvalid) << number;
  }
}

}  // namespace
}  // namespace godwit::nbd
