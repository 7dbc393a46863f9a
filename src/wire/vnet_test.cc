#include "wire/vnet.hh"

#include <gtest/gtest.h>

#include <functional>

#include "wire/wire_testing.hh"

namespace godwit::wire {
namespace {

using testing::Random;

bool passes_with(Bytes frame, const std::function<void(VnetHeader&)>& change) {
  VnetHeader vnet = read_vnet(BytesView(frame).first<kVnetBytes>());
  change(vnet);
  write_vnet(vnet, MutableBytes(frame).first<kVnetBytes>());
  return check_vnet(frame);
}

TEST(Vnet, HeaderIsLittleEndianAsTheKernelWritesIt) {
  const Bytes raw = from_hex(
      "010142000805220010"
      "00");
  const VnetHeader vnet = read_vnet(BytesView(raw).first<kVnetBytes>());
  const VnetHeader expected{.flags = 1,
                            .gso = 1,
                            .header_len = 0x42,
                            .gso_size = 0x0508,
                            .csum_start = 34,
                            .csum_offset = 16};
  EXPECT_EQ(vnet, expected);
  Bytes written(kVnetBytes);
  write_vnet(vnet, MutableBytes(written).first<kVnetBytes>());
  EXPECT_EQ(written, raw);
}

TEST(Vnet, PassesPlainFramesAndBounds) {
  Random random(1);
  EXPECT_TRUE(check_vnet(testing::plain_frame(kMinFrameBytes, random)));
  EXPECT_TRUE(check_vnet(testing::plain_frame(kMaxFrameBytes, random)));
  EXPECT_FALSE(check_vnet(testing::plain_frame(kMinFrameBytes - 1, random)));
  EXPECT_FALSE(check_vnet(testing::plain_frame(kMaxFrameBytes + 1, random)));
  EXPECT_FALSE(check_vnet({}));
}

TEST(Vnet, RefusesInconsistentChecksumFields) {
  Random random(2);
  const Bytes frame = testing::plain_frame(kVnetBytes + 100, random);
  const auto with = [&](std::uint16_t start, std::uint16_t offset) {
    return passes_with(frame, [&](VnetHeader& vnet) {
      vnet.flags = kVnetNeedsChecksum;
      vnet.csum_start = start;
      vnet.csum_offset = offset;
    });
  };
  EXPECT_TRUE(with(34, 16));
  EXPECT_TRUE(with(34, 64));
  EXPECT_FALSE(with(34, 65));
  EXPECT_FALSE(with(13, 6));
  EXPECT_FALSE(with(99, 0));
  EXPECT_FALSE(with(0xffff, 0xffff));
}

TEST(Vnet, RefusesWhatNoKernelSends) {
  Random random(3);
  const Bytes frame = testing::super_frame({}, random);
  ASSERT_TRUE(check_vnet(frame));
  using V = VnetHeader;
  EXPECT_FALSE(passes_with(frame, [](V& vnet) { vnet.flags = 0; }));
  EXPECT_FALSE(passes_with(frame, [](V& vnet) { vnet.flags |= 0x40; }));
  EXPECT_FALSE(passes_with(frame, [](V& vnet) { vnet.gso = 2; }));
  EXPECT_FALSE(passes_with(frame, [](V& vnet) { vnet.gso = 3; }));  // UFO is not offered
  EXPECT_FALSE(passes_with(frame, [](V& vnet) { vnet.gso = 4; }));  // not IPv6
  EXPECT_FALSE(passes_with(frame, [](V& vnet) { vnet.gso = 5; }));  // not UDP
  EXPECT_FALSE(passes_with(frame, [](V& vnet) { vnet.gso = kGsoEcn; }));
  EXPECT_FALSE(passes_with(frame, [](V& vnet) { vnet.gso_size = 0; }));
  EXPECT_FALSE(passes_with(frame, [](V& vnet) { vnet.gso_size = 0xffff; }));
  EXPECT_FALSE(passes_with(frame, [](V& vnet) { vnet.csum_start += 2; }));
  EXPECT_FALSE(passes_with(frame, [](V& vnet) { vnet.csum_offset = 6; }));
  EXPECT_FALSE(passes_with(frame, [](V& vnet) { vnet.header_len = 13; }));
  EXPECT_FALSE(passes_with(frame, [](V& vnet) { vnet.header_len = 0xffff; }));
  EXPECT_TRUE(passes_with(frame, [](V& vnet) { vnet.gso |= kGsoEcn; }));
  EXPECT_TRUE(passes_with(frame, [](V& vnet) { vnet.header_len = 1000; }));
}

TEST(Vnet, RefusesSuperFramesWithWrongHeaders) {
  Random random(4);
  const Bytes frame = testing::super_frame({}, random);
  const auto with = [&](std::size_t at, int value) {
    Bytes changed = frame;
    changed[kVnetBytes + at] = static_cast<std::byte>(value);
    return check_vnet(changed);
  };
  EXPECT_FALSE(with(12, 0x86));  // EtherType
  EXPECT_FALSE(with(14, 0x46));  // IP header longer than csum_start says
  EXPECT_FALSE(with(14, 0x65));  // IP version
  EXPECT_FALSE(with(16, 0xff));  // IP length beyond the frame
  EXPECT_FALSE(with(20, 0x20));  // a fragment
  EXPECT_FALSE(with(23, 17));    // protocol
  EXPECT_FALSE(with(46, 0x40));  // TCP data offset 4 words
  Bytes without_payload = frame;
  to_big_endian(std::uint16_t{20 + 32}, &without_payload[kVnetBytes + 16]);
  EXPECT_FALSE(check_vnet(without_payload));
}

TEST(Vnet, LimitsTheSegmentsOfUdp) {
  Random random(5);
  const auto frame = [&](std::uint16_t size) {
    return testing::super_frame({.is_udp = true, .payload = 6400, .gso_size = size}, random);
  };
  EXPECT_TRUE(check_vnet(frame(100)));
  EXPECT_FALSE(check_vnet(frame(99)));
}

}  // namespace
}  // namespace godwit::wire
