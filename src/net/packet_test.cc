#include "net/packet.hh"

#include <gtest/gtest.h>

#include "net/net_testing.hh"

namespace godwit::net {
namespace {

using wire::testing::folded_sum;

Ip ip(const char* text) { return parse_ip(text).value(); }

// UDP from 10.7.0.1:5353 to 10.7.0.2:53 with four bytes.
constexpr const char* kUdp4 =
    "0800"
    "4500002000004000401126bd"
    "0a0700010a070002"
    "14e90035000c0000"
    "01020304";
// ICMPv6 echo behind a hop-by-hop and a fragment header (the first of several).
constexpr const char* kFragment6 =
    "86dd"
    "600000000018"
    "0040fd000000000000000000000000000001fd000000000000000000000000000002"
    "2c00050200000100"
    "3a00000100000007"
    "8000000000010001";

TEST(Packet, FindsItsParts) {
  const Bytes frame = frame_with(1, 2, kUdp4);
  const auto packet = read_ip_frame(frame);
  ASSERT_TRUE(packet);
  EXPECT_TRUE(packet->is_ip4);
  EXPECT_EQ(packet->l3, kPayloadAt);
  EXPECT_EQ(packet->l4, kPayloadAt + 20);
  EXPECT_EQ(packet->end, frame.size());
  EXPECT_EQ(packet->source, ip("10.7.0.1"));
  EXPECT_EQ(packet->destination, ip("10.7.0.2"));
  EXPECT_EQ(packet->protocol, kUdp);
  EXPECT_EQ(packet->hops, 64);
  EXPECT_FALSE(packet->is_fragment());
  EXPECT_TRUE(packet->has_l4(frame, 12));
  EXPECT_FALSE(packet->has_l4(frame, 13));
}

TEST(Packet, LooksBehindExtensionHeaders) {
  const Bytes frame = frame_with(1, 2, kFragment6);
  const auto packet = read_ip_frame(frame);
  ASSERT_TRUE(packet);
  EXPECT_EQ(packet->protocol, kIcmp6);
  EXPECT_EQ(packet->l4, kPayloadAt + 56);
  EXPECT_TRUE(packet->has_more && packet->is_fragment());
  EXPECT_EQ(packet->fragment_offset, 0);
}

TEST(Packet, EveryCutAndAnyChangedHeaderIsRefused) {
  for (const char* hex : {kUdp4, kFragment6}) {
    const Bytes whole = frame_with(1, 2, hex);
    for (std::size_t size = 0; size < whole.size(); ++size) {
      EXPECT_FALSE(read_ip_frame(BytesView(whole).first(size))) << size;
    }
  }
  for (std::size_t at = kPayloadAt; at < kPayloadAt + 20; ++at) {
    Bytes changed = frame_with(1, 2, kUdp4);
    changed[at] ^= std::byte{0x10};
    EXPECT_FALSE(read_ip_frame(changed)) << at;
  }
}

// As ::ffff:10.7.0.1, which compares equal to it.
TEST(Packet, AnIpv4AddressInIpv6IsRefused) {
  const Bytes mapped = from_hex("00000000000000000000ffff0a070001");
  for (const std::size_t at : {8U, 24U}) {
    Bytes frame = frame_with(1, 2, kFragment6);
    std::ranges::copy(mapped, frame.begin() + kPayloadAt + static_cast<std::ptrdiff_t>(at));
    EXPECT_FALSE(read_ip_frame(frame)) << at;
  }
}

TEST(Checksum, AgreesWithAPlainOneAtEveryLength) {
  std::mt19937_64 random(7);
  for (std::size_t size = 0; size < 100; ++size) {
    Bytes bytes(size);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    EXPECT_EQ(fold(sum_of(bytes, 12345)), folded_sum(bytes, 12345)) << size;
  }
}

// RFC 1624's own example of where others fail: 0xdd2f, 0x5555 becomes 0x3285.
TEST(Checksum, AChangeIsAsGoodAsANewSum) {
  Bytes field = from_hex("dd2f");
  ChecksumChange example;
  example.replace(std::uint16_t{0x5555}, std::uint16_t{0x3285});
  example.apply(field.data());
  EXPECT_EQ(to_hex(field), "0000");

  std::mt19937_64 random(8);
  for (int i = 0; i < 1000; ++i) {
    Bytes bytes(40);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    Bytes sum(2), seed(2);
    to_big_endian(checksum_of(bytes), sum.data());
    to_big_endian(fold(sum_of(bytes)), seed.data());
    const Ip next = Ip::of4(static_cast<std::uint32_t>(random()));
    ChecksumChange change;
    change.replace(Ip::at4(&bytes[8]), next);
    next.write(&bytes[8]);
    change.apply(sum.data());
    change.apply_to_seed(seed.data());
    EXPECT_EQ(from_big_endian<std::uint16_t>(sum.data()), checksum_of(bytes));
    EXPECT_EQ(from_big_endian<std::uint16_t>(seed.data()), fold(sum_of(bytes)));
  }
}

}  // namespace
}  // namespace godwit::net
