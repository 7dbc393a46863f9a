#include "agent/state_message.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

namespace godwit::agent {
namespace {

using testing::HasSubstr;

MigrationId some_id() {
  MigrationId id;
  id.bytes.fill(std::byte{8});
  return id;
}

// As a table's rows are: alike.
Bytes rows(std::size_t size, unsigned seed) {
  std::mt19937 random(seed);
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i) {
    bytes[i] = static_cast<std::byte>(i % 14 < 10 ? i % 14 : random());
  }
  return bytes;
}

Result<Bytes> unpacked(StateUnpacker& unpacker, BytesView body) {
  const auto message = state_message(body);
  if (!message) return std::unexpected(message.error());
  return unpacker.unpack(*message);
}

// docs/protocol/components.md has the same.
TEST(StateMessage, GoldenBytes) {
  const Bytes plain = from_hex("01000201000000000e0000000302000000000a000005dc");
  const std::string golden =
      "080808080808080808080808080808080000000000000001"
      "00000017"
      "28b52ffd0050b8000001000201000000000e0000000302000000000a000005dc";
  EXPECT_EQ(to_hex(StatePacker(some_id()).pack(1, plain)), golden);
  const auto message = state_message(from_hex(golden));
  ASSERT_TRUE(message) << message.error().text;
  EXPECT_EQ(message->id, some_id());
  EXPECT_EQ(message->number, 1U);
  EXPECT_EQ(StateUnpacker().unpack(*message), plain);
}

TEST(StateMessage, AllComeAsTheyWere) {
  for (unsigned seed = 1; seed <= 20; ++seed) {
    std::mt19937 random(seed);
    StatePacker packer(some_id());
    StateUnpacker unpacker;
    for (std::uint64_t number = 1; number < 30; ++number) {
      const std::size_t size = 1 + random() % (seed % 4 == 0 ? kMostStateBytes : 3000);
      const Bytes plain = rows(size, static_cast<unsigned>(random()));
      const Bytes body = packer.pack(number, plain);
      const auto message = state_message(body);
      ASSERT_TRUE(message) << message.error().text;
      EXPECT_EQ(message->number, number);
      EXPECT_EQ(unpacker.unpack(*message), plain) << "seed " << seed << ", message " << number;
    }
  }
}

TEST(StateMessage, OneRefersToThoseBefore) {
  StatePacker packer(some_id());
  const Bytes plain = rows(50'000, 1);
  const std::size_t first = packer.pack(1, plain).size();
  EXPECT_LT(packer.pack(2, plain).size(), first / 10);
}

TEST(StateMessage, WhatIsDamagedIsRefused) {
  const Bytes plain = rows(2000, 1);
  const Bytes body = StatePacker(some_id()).pack(1, plain);
  for (std::size_t size = 0; size < body.size(); ++size) {
    StateUnpacker unpacker;
    EXPECT_FALSE(unpacked(unpacker, BytesView(body).first(size))) << size;
  }
  std::mt19937 random(1);
  for (int i = 0; i < 3000; ++i) {
    Bytes damaged = body;
    damaged[random() % damaged.size()] ^= static_cast<std::byte>(1 + random() % 255);
    StateUnpacker unpacker;
    const auto plain_again = unpacked(unpacker, damaged);
    if (plain_again) {
      EXPECT_LE(plain_again->size(), kMostStateBytes);
    }
  }
}

// Nobody makes us hold more than a message.
TEST(StateMessage, WhatIsTooLongIsRefused) {
  Bytes body = StatePacker(some_id()).pack(1, rows(kMostStateBytes, 1));
  const auto say = [&](std::uint32_t length) {
    Bytes said;
    Writer(said).bytes(BytesView(body).first(24)).u32(length).bytes(BytesView(body).subspan(28));
    StateUnpacker unpacker;
    return unpacked(unpacker, said);
  };
  EXPECT_TRUE(say(kMostStateBytes));
  EXPECT_FALSE(say(kMostStateBytes / 2)) << "more comes out than it says";
  EXPECT_FALSE(say(0));
  const auto longer = say(kMostStateBytes + 1);
  ASSERT_FALSE(longer);
  EXPECT_THAT(longer.error().text, HasSubstr("is the most"));
  EXPECT_FALSE(say(UINT32_MAX));
}

TEST(StateMessage, OneThatIsMissingIsNoticed) {
  StatePacker packer(some_id());
  const Bytes first = packer.pack(1, rows(50'000, 1)), second = packer.pack(2, rows(50'000, 1));
  StateUnpacker unpacker;
  EXPECT_FALSE(unpacked(unpacker, second));
}

}  // namespace
}  // namespace godwit::agent
