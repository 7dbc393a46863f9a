#include "lab/too_big.hh"

#include <gtest/gtest.h>

#include "lab/link_quality.hh"

namespace godwit::lab {
namespace {

constexpr Ipv4Bytes kFrom4{std::byte{10}, std::byte{67}, std::byte{0}, std::byte{2}};
constexpr Ipv6Bytes kFrom6{std::byte{0xfd}, std::byte{0x67}};

Bytes frame4(std::uint16_t flags, std::uint8_t protocol, std::uint8_t first = 0) {
  Bytes frame;
  Writer out(frame);
  for (std::uint8_t i = 1; i <= 12; ++i) out.u8(i);
  out.u16(0x0800).u16(0x4500).u16(1500).u16(1).u16(flags).u8(64).u8(protocol).u16(0);
  out.u32(0x0a420003).u32(0x0a420103).u8(first);
  frame.resize(1514);
  return frame;
}

// RFC 1071: over data with its checksum in place the sum is all ones.
std::uint32_t sum16(BytesView bytes) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i + 1 < bytes.size(); i += 2)
    sum += from_big_endian<std::uint16_t>(&bytes[i]);
  while (sum >> 16U != 0) sum = (sum & 0xffffU) + (sum >> 16U);
  return sum;
}

TEST(TooBig, AnswersIpv4WithDf) {
  const Bytes frame = frame4(0x4000, 6);
  const Bytes reply = too_big_reply(frame, 1400, kFrom4, kFrom6);
  ASSERT_EQ(reply.size(), kEthernetHeader + 576);
  EXPECT_EQ(reply[0], std::byte{7});  // to the sender's MAC, from the one it was sent to
  EXPECT_EQ(reply[6], std::byte{1});
  const BytesView ip = BytesView(reply).subspan(kEthernetHeader);
  EXPECT_EQ(sum16(ip.first(20)), 0xffffU);
  EXPECT_EQ(sum16(ip.subspan(20)), 0xffffU);
  EXPECT_EQ(from_big_endian<std::uint32_t>(&ip[12]), 0x0a430002U);
  EXPECT_EQ(from_big_endian<std::uint32_t>(&ip[16]), 0x0a420003U);
  EXPECT_EQ(from_big_endian<std::uint16_t>(&ip[20]), 0x0304U);
  EXPECT_EQ(from_big_endian<std::uint16_t>(&ip[26]), 1400U);
  EXPECT_TRUE(std::equal(ip.begin() + 28, ip.end(), frame.begin() + kEthernetHeader));
}

TEST(TooBig, IsSilentWhereNoErrorMayBeSent) {
  EXPECT_TRUE(too_big_reply(frame4(0, 6), 1400, kFrom4, kFrom6).empty());          // no DF
  EXPECT_TRUE(too_big_reply(frame4(0x4001, 6), 1400, kFrom4, kFrom6).empty());     // later fragment
  EXPECT_TRUE(too_big_reply(frame4(0x4000, 1, 3), 1400, kFrom4, kFrom6).empty());  // an ICMP error
  EXPECT_FALSE(too_big_reply(frame4(0x4000, 1, 8), 1400, kFrom4, kFrom6).empty());  // ping
  EXPECT_TRUE(too_big_reply({}, 1400, kFrom4, kFrom6).empty());
  for (std::size_t size = 0; size < 60; ++size) {
    (void)too_big_reply(BytesView(frame4(0x4000, 1)).first(size), 1400, kFrom4, kFrom6);
  }
}

TEST(TooBig, AnswersIpv6) {
  Bytes frame;
  Writer out(frame);
  for (std::uint8_t i = 1; i <= 12; ++i) out.u8(i);
  out.u16(0x86dd).u32(0x60000000).u16(1460).u8(17).u8(64);
  for (int i = 0; i < 2; ++i) out.u64(0xfd67000000000000).u64(3);
  frame.resize(1514);
  const Bytes reply = too_big_reply(frame, 1400, kFrom4, kFrom6);
  ASSERT_EQ(reply.size(), kEthernetHeader + 1280);
  const BytesView ip = BytesView(reply).subspan(kEthernetHeader);
  EXPECT_EQ(ip[40], std::byte{2});
  EXPECT_EQ(from_big_endian<std::uint32_t>(&ip[44]), 1400U);
  Bytes pseudo;
  Writer(pseudo).bytes(ip.subspan(8, 32)).u32(1240).u32(58).bytes(ip.subspan(40));
  EXPECT_EQ(sum16(pseudo), 0xffffU);
  frame[14 + 24] = std::byte{0xff};  // to a multicast group
  EXPECT_TRUE(too_big_reply(frame, 1400, kFrom4, kFrom6).empty());
}

}  // namespace
}  // namespace godwit::lab
