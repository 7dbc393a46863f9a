// Pieces of super-frames with holes are what segmentation offload would have made of the segments
// in them, checked against the model in wire_testing_offload.cc.
#include "wire/salvage.hh"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "wire/wire_testing.hh"

namespace godwit::wire {
namespace {

using testing::Random;
using testing::SuperFrameSpec;

constexpr std::size_t kChunk = 1400;

Bytes in_fragments(Bytes frame, std::size_t chunk) {
  const std::size_t count = (frame.size() + 1 + chunk - 1) / chunk;
  const std::size_t padding = count * chunk - frame.size();
  frame.resize(count * chunk);
  frame.back() = static_cast<std::byte>(std::min<std::size_t>(padding, 255));
  return frame;
}

std::vector<Bytes> pieces_of(const Bytes& fragments, FragmentSet received, FragmentSet before = 0) {
  const Salvage salvage(fragments, kChunk, received);
  std::vector<Bytes> pieces;
  Bytes out(kReassemblyBytes);
  if (!salvage.valid()) return pieces;
  for (SegmentRun run = salvage.next_run(0, before); run.count > 0;
       run = salvage.next_run(run.first + run.count, before)) {
    pieces.push_back(to_bytes(salvage.write(run, out)));
  }
  return pieces;
}

std::vector<Bytes> packets_of(const std::vector<Bytes>& frames) {
  std::vector<Bytes> packets;
  for (const Bytes& frame : frames) {
    for (Bytes& packet : testing::offload(frame)) packets.push_back(std::move(packet));
  }
  return packets;
}

std::vector<SuperFrameSpec> all_kinds() {
  std::vector<SuperFrameSpec> specs;
  for (const bool is_ip6 : {false, true}) {
    for (const bool is_udp : {false, true}) {
      for (const bool has_vlan : {false, true}) {
        SuperFrameSpec spec{.is_ip6 = is_ip6, .is_udp = is_udp, .has_vlan = has_vlan};
        if (is_udp) spec.gso_size = 1200;
        spec.tcp_flags = 0x99;  // CWR, ACK, PSH, FIN
        spec.ecn = !is_udp;
        specs.push_back(spec);
        spec.payload = 3000;
        spec.options = 0;
        specs.push_back(spec);
      }
    }
  }
  return specs;
}

TEST(Salvage, TheModelFindsItsOwnPacketsRightAndChangedOnesWrong) {
  Random random(1);
  for (const SuperFrameSpec& spec : all_kinds()) {
    const Bytes frame = testing::super_frame(spec, random);
    EXPECT_TRUE(testing::has_right_seed(frame));
    EXPECT_TRUE(check_vnet(frame));
    for (Bytes packet : testing::offload(frame)) {
      EXPECT_EQ(testing::fault_in(packet), "");
      packet.back() ^= std::byte{1};
      EXPECT_NE(testing::fault_in(packet), "");
    }
  }
}

TEST(Salvage, NothingLostIsTheFrameItself) {
  Random random(2);
  for (const SuperFrameSpec& spec : all_kinds()) {
    const Bytes frame = testing::super_frame(spec, random);
    const auto pieces = pieces_of(in_fragments(frame, kChunk), ~FragmentSet{0});
    EXPECT_EQ(pieces, std::vector<Bytes>{frame});
  }
}

TEST(Salvage, EachLostDatagramCostsOnlyTheSegmentsItTouches) {
  Random random(3);
  for (const SuperFrameSpec& spec : all_kinds()) {
    const Bytes frame = testing::super_frame(spec, random);
    const Bytes fragments = in_fragments(frame, kChunk);
    const auto expected = testing::offload(frame);
    for (std::size_t lost = 1; lost < fragments.size() / kChunk; ++lost) {
      const auto pieces = pieces_of(fragments, ~(FragmentSet{1} << lost));
      EXPECT_LE(pieces.size(), 2u);
      const auto packets = packets_of(pieces);
      // 1400 B touch at most 3 segments of 1200 B.
      EXPECT_GE(packets.size() + 3, expected.size());
      EXPECT_LT(packets.size(), expected.size() + (lost == fragments.size() / kChunk - 1));
      for (const Bytes& packet : packets) {
        EXPECT_EQ(testing::fault_in(packet), "");
        EXPECT_NE(std::ranges::find(expected, packet), expected.end());
      }
      for (const Bytes& piece : pieces) {
        EXPECT_TRUE(check_vnet(piece));
        EXPECT_TRUE(testing::has_right_seed(piece));
      }
    }
  }
}

TEST(Salvage, StragglersAddWhatTheyCompleteAndNothingTwice) {
  Random random(4);
  for (const SuperFrameSpec& spec : all_kinds()) {
    const Bytes frame = testing::super_frame(spec, random);
    const Bytes fragments = in_fragments(frame, kChunk);
    std::vector<std::size_t> order(fragments.size() / kChunk);
    std::iota(order.begin(), order.end(), 0);
    std::ranges::shuffle(order, random);
    FragmentSet received = 0;
    FragmentSet before = 0;
    std::vector<Bytes> packets;
    for (const std::size_t index : order) {
      received |= FragmentSet{1} << index;
      const auto made = packets_of(pieces_of(fragments, received, before));
      packets.insert(packets.end(), made.begin(), made.end());
      if (!made.empty()) before = received;
    }
    EXPECT_TRUE(std::ranges::is_permutation(packets, testing::offload(frame)));
  }
}

TEST(Salvage, FlagsStayWhereTheyBelong) {
  Random random(5);
  const Bytes frame = testing::super_frame({.tcp_flags = 0x99, .ecn = true}, random);
  const auto pieces = pieces_of(in_fragments(frame, kChunk), ~(FragmentSet{1} << 20));
  ASSERT_EQ(pieces.size(), 2u);
  constexpr std::size_t kFlags = kVnetBytes + 14 + 20 + 13;
  EXPECT_EQ(pieces[0][kFlags], std::byte{0x90});  // CWR, ACK
  EXPECT_EQ(pieces[1][kFlags], std::byte{0x19});  // ACK, PSH, FIN
  EXPECT_EQ(pieces[0][1], std::byte{0x81});       // ECN: the CWR is here
  EXPECT_EQ(pieces[1][1], std::byte{0x01});
}

TEST(Salvage, WithoutHeadersOrASuperFrameThereIsNothing) {
  Random random(6);
  const Bytes frame = testing::super_frame({}, random);
  EXPECT_TRUE(pieces_of(in_fragments(frame, kChunk), ~FragmentSet{1}).empty());
  const Bytes plain = testing::plain_frame(9000, random);
  EXPECT_TRUE(pieces_of(in_fragments(plain, kChunk), ~FragmentSet{2}).empty());
}

}  // namespace
}  // namespace godwit::wire
