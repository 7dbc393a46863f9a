// Batches by several packers: which one has which, and their order.
#include "agent/encode_stage.hh"

#include <gtest/gtest.h>

#include <set>

#include "codec/decoder.hh"
#include "codec/made_up_guest.hh"

namespace godwit::agent {
namespace {

constexpr codec::Settings kSettings{
    .cache = 64 * 4096, .level = 1, .window_bits = 20, .windows = 3};

struct EncodeStageTest : testing::Test {
  void give(BytesView raw) {
    while (!raw.empty()) {
      const MutableBytes room = stage.room();
      if (room.empty()) {
        pass();
        continue;
      }
      const std::size_t count = std::min(room.size(), raw.size());
      std::ranges::copy(raw.first(count), room.begin());
      stage.commit(count);
      raw = raw.subspan(count);
    }
  }
  void pass() {
    loop.run_once(milliseconds(100));
    for (; !stage.coded().empty(); stage.took(stage.coded().size())) append(coded, stage.coded());
  }
  void wait_until_idle() {
    while (stage.busy()) pass();
  }
  std::set<std::uint8_t> windows() const {
    std::set<std::uint8_t> seen;
    for (std::size_t at = 0; at < coded.size();) {
      const auto header =
          codec::parse_header(BytesView(coded).subspan(at, codec::BatchHeader::kSize));
      if (header->kind == codec::BatchKind::kPlain) seen.insert(header->window);
      at += codec::BatchHeader::kSize + header->coded;
    }
    return seen;
  }

  os::Loop loop;
  EncodeStage stage{
      loop, kSettings, {}, {.changed = [] {}, .mark = [](const stream::QemuMark&) {}}};
  Bytes coded;
};

TEST_F(EncodeStageTest, WhileOnePackerKeepsUpThereIsOneWindow) {
  const Bytes raw = codec::MadeUpGuest(1, 500).stream(2);
  for (std::size_t at = 0; at < raw.size(); at += 100'000) {
    give(BytesView(raw).subspan(at, std::min<std::size_t>(100'000, raw.size() - at)));
    stage.flush();
    wait_until_idle();
  }
  EXPECT_EQ(windows(), std::set<std::uint8_t>{0});
}

TEST_F(EncodeStageTest, WhatOneCannotDoOthersDoAndItLeavesInOrder) {
  const Bytes raw = codec::MadeUpGuest(2, 4'000).stream(2);
  give(raw);
  stage.finish();
  wait_until_idle();
  EXPECT_TRUE(stage.ended());
  EXPECT_GT(windows().size(), 1U);
  EXPECT_EQ(stage.stats().coded, coded.size());
  EXPECT_EQ(stage.raw_until(coded.size()), raw.size());
  codec::Decoder decoder(kSettings);
  decoder.push(coded);
  Bytes out;
  for (Result<bool> more = true; more && *more; more = decoder.step()) append(out, decoder.take());
  EXPECT_TRUE(decoder.verified() && out == raw);
}

}  // namespace
}  // namespace godwit::agent
