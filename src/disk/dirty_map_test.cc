#include "disk/dirty_map.hh"

#include <gtest/gtest.h>

#include <random>

namespace godwit::disk {
namespace {

constexpr std::uint64_t kBlock = kBlockBytes;

TEST(DirtyMap, MarksWholeBlocksAndTakesThemOnce) {
  DirtyMap map({10 * kBlock});
  map.mark({.offset = kBlock - 1, .length = 2});  // touches two
  EXPECT_EQ(map.dirty_blocks(), 2u);
  EXPECT_EQ(map.take(8 * kBlock), (Extent{.offset = 0, .length = 2 * kBlock}));
  EXPECT_EQ(map.take(8 * kBlock), std::nullopt);
}

TEST(DirtyMap, TheLastBlockEndsWithTheDisk) {
  DirtyMap map({2 * kBlock + 512});
  map.mark({.offset = 0, .length = map.size().bytes});
  EXPECT_EQ(map.take(64 * kBlock), (Extent{.offset = 0, .length = 2 * kBlock + 512}));
}

TEST(DirtyMap, TakesInTurnOverTheWholeDisk) {
  DirtyMap map({200 * kBlock});
  map.mark({.offset = 0, .length = 4 * kBlock});
  map.mark({.offset = 150 * kBlock, .length = kBlock});
  EXPECT_EQ(map.take(2 * kBlock)->offset, 0u);
  map.mark({.offset = 0, .length = 1});  // behind the cursor: others first
  EXPECT_EQ(map.take(2 * kBlock)->offset, 2 * kBlock);
  EXPECT_EQ(map.take(2 * kBlock)->offset, 150 * kBlock);
  EXPECT_EQ(map.take(2 * kBlock)->offset, 0u);
  EXPECT_EQ(map.take(2 * kBlock), std::nullopt);
}

TEST(DirtyMap, EveryMarkedBlockIsTaken) {
  std::mt19937_64 random(7);
  DirtyMap map({1000 * kBlock});
  std::vector<bool> marked(1000);
  for (int i = 0; i < 300; ++i) {
    const std::uint64_t block = random() % 990, count = 1 + random() % 10;
    map.mark({.offset = block * kBlock, .length = count * kBlock});
    for (std::uint64_t each = block; each < block + count; ++each) marked[each] = true;
  }
  while (const auto extent = map.take(4 * kBlock)) {
    ASSERT_LE(extent->length, 4 * kBlock);
    for (std::uint64_t at = extent->offset; at < extent->end(); at += kBlock) {
      ASSERT_TRUE(marked[at / kBlock]) << at;
      marked[at / kBlock] = false;
    }
  }
  EXPECT_EQ(std::count(marked.begin(), marked.end(), true), 0);
  EXPECT_EQ(map.dirty_bytes(), 0u);
}

TEST(DirtyMapDeathTest, WhatIsNotWithinTheDisk) {
  DirtyMap map({kBlock});
  EXPECT_DEATH(map.mark({.offset = kBlock, .length = 1}), "bytes at");
}

}  // namespace
}  // namespace godwit::disk
