// Inbox and Outbox: where bytes lie, and that few of them are moved.
#include <gtest/gtest.h>

#include <algorithm>

#include "nbd/inbox.hh"
#include "nbd/outbox.hh"

namespace godwit::nbd {
namespace {

constexpr std::size_t kLongest = 1 << 20;

std::byte pattern(std::size_t position) { return static_cast<std::byte>(position * 131 >> 3); }

// A message is used where it was read to, and only its beginning is ever moved.
TEST(NbdInbox, LongMessagesAreNotMoved) {
  Inbox inbox(kLongest);
  std::size_t fed = 0, position = 0, moved = 0;
  for (int message = 0; message < 20; ++message) {
    while (inbox.bytes().size() < kLongest) {
      inbox.expect(kLongest);
      const std::byte* before = inbox.bytes().data();
      const MutableBytes room = inbox.room();
      if (inbox.bytes().data() != before) moved += inbox.bytes().size();
      ASSERT_FALSE(room.empty());
      for (std::byte& each : room) each = pattern(fed++);
      inbox.commit(room.size());
    }
    const BytesView taken = inbox.take(kLongest);
    ASSERT_TRUE(std::ranges::all_of(
        taken, [&position](std::byte each) { return each == pattern(position++); }));
  }
  EXPECT_LE(moved, 20 * Inbox::kReadAhead);
}

TEST(NbdInbox, SmallMessagesComeManyAtOnce) {
  Inbox inbox(kLongest);
  for (int round = 0; round < 100; ++round) {
    const std::size_t room = inbox.room().size();
    EXPECT_EQ(room, Inbox::kReadAhead);
    inbox.commit(room);
    EXPECT_TRUE(inbox.room().empty()) << "enough waits";
    while (!inbox.bytes().empty()) inbox.take(64);
  }
}

TEST(NbdInbox, WhatIsSkippedNeedNotFit) {
  Inbox inbox(1000);
  const MutableBytes first = inbox.room();
  first[0] = std::byte{1};
  inbox.commit(10);
  inbox.take(1);
  inbox.skip(1'000'000);
  EXPECT_TRUE(inbox.bytes().empty());
  std::size_t left = 1'000'000 - 9;
  while (left > 0) {
    const MutableBytes room = inbox.room();
    const std::size_t count = std::min(room.size(), left);
    ASSERT_GT(count, 0u);
    if (count == left && count < room.size()) room[count] = std::byte{7};
    inbox.commit(std::min(room.size(), count + 1));
    left -= count;
  }
  if (inbox.bytes().empty()) {
    inbox.room()[0] = std::byte{7};
    inbox.commit(1);
  }
  ASSERT_EQ(inbox.bytes().size(), 1u);
  EXPECT_EQ(inbox.bytes()[0], std::byte{7});
}

TEST(NbdOutbox, BytesWrapAround) {
  Outbox outbox(100);
  std::size_t in = 0, out = 0;
  for (int round = 0; round < 200; ++round) {
    Bytes bytes(std::min<std::size_t>(outbox.free(), static_cast<std::size_t>(round) % 37));
    for (std::byte& each : bytes) each = pattern(in++);
    outbox.append(bytes);
    const BytesView part = outbox.peek().first(std::min<std::size_t>(outbox.peek().size(), 11));
    for (const std::byte each : part) ASSERT_EQ(each, pattern(out++));
    outbox.advance(part.size());
    ASSERT_EQ(outbox.free(), 100 - (in - out));
  }
  EXPECT_GT(in, 1000u);
}

}  // namespace
}  // namespace godwit::nbd
