#include "codec/page_store.hh"

#include <gtest/gtest.h>

namespace godwit::codec {
namespace {

Bytes page(int value) { return Bytes(4096, static_cast<std::byte>(value)); }

TEST(PageStore, KeepsAPageInItsSlot) {
  PageStore store(3 * 4096, 4096);
  const Slot slot = store.put(page_key(0, 7), page(1));
  EXPECT_EQ(store.find(page_key(0, 7)), slot);
  EXPECT_EQ(store.find(page_key(1, 7)), kNoSlot);
  EXPECT_EQ(store.put(page_key(0, 7), page(2)), slot);
  EXPECT_EQ(to_bytes(store.at(slot)), page(2));
}

TEST(PageStore, WhatIsUsedStays) {
  PageStore store(2 * 4096, 4096);
  store.put(1, page(1));
  store.put(2, page(2));
  store.put(1, page(3));  // again: it is hot
  store.put(4, page(4));
  EXPECT_NE(store.find(1), kNoSlot);
  EXPECT_EQ(store.find(2), kNoSlot);
  EXPECT_NE(store.find(4), kNoSlot);
  store.touch(store.find(4));
  store.put(5, page(5));  // all were used: the next in turn
  EXPECT_TRUE(store.full());
  EXPECT_NE(store.find(5), kNoSlot);
}

TEST(PageStore, HasNoRoomWithoutABudget) {
  const PageStore store(4095, 4096);
  EXPECT_EQ(store.slots(), 0U);
  EXPECT_EQ(store.find(1), kNoSlot);
  EXPECT_FALSE(store.holds(0));
}

}  // namespace
}  // namespace godwit::codec
