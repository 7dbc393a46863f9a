// The golden bytes of docs/protocol/wire.md, computed from that text by another implementation
// (Python's cryptography). They change only together with kDatagramVersion.
#include "wire/datagram.hh"

#include <gtest/gtest.h>

#include "wire/key.hh"
#include "wire/wire_testing.hh"

namespace godwit::wire {
namespace {

using testing::Collected;

Bytes counting(std::size_t size) {
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i);
  return bytes;
}

TEST(Datagram, HeaderGoldenBytes) {
  const DatagramHeader header{.type = DatagramType::fragment,
                              .epoch = 0xfe,
                              .index = 5,
                              .count = 46,
                              .receiver_index = 0xaabbccdd,
                              .counter = 0x0102030405060708};
  Bytes bytes(kDatagramOverhead);
  write_header(header, HeaderBytes(bytes.data(), kHeaderBytes));
  EXPECT_EQ(to_hex(BytesView(bytes).first(16)), "10fe052eaabbccdd0102030405060708");
  EXPECT_EQ(read_header(bytes), header);
  EXPECT_EQ(receiver_index(bytes), 0xaabbccdd);
  EXPECT_EQ(to_hex(make_aad(0x01fe, bytes)), "000001fe10fe052e");
  EXPECT_EQ(to_hex(nonce_of(bytes)), "aabbccdd0102030405060708");
}

TEST(Datagram, KeyGoldenBytes) {
  std::array<std::byte, kWireSecretBytes> secret;
  secret.fill(std::byte{0x11});
  KeyPurpose purpose{.wire = WireId::from(counting(16)),
                     .epoch = 2,
                     .direction = Direction::from_acceptor,
                     .lane = 1,
                     .generation = 9};
  EXPECT_EQ(to_hex(derive_key(secret, purpose).bytes),
            "ee28cf747cc2ced55b3ac2373d360754e58bfbf55deb089d2b233fca1e5d46e6");
  purpose.algorithm = crypto::AeadAlgorithm::chacha20_poly1305;
  EXPECT_EQ(to_hex(derive_key(secret, purpose).bytes),
            "3debb4501c20c7e46fe8d808332bb97eebd9e8c87b62ef21b92b5a6db935a44e");
}

TEST(Datagram, SealedGoldenBytes) {
  LaneKey lane = testing::test_key(0x0103);
  Sealer sealer(lane, 1500);
  DatagramBatch batch;
  sealer.frame(Bytes(kMinFrameBytes), batch);
  Bytes second(kMinFrameBytes + 1);
  second.back() = std::byte{0xff};
  sealer.frame(second, batch);
  sealer.message(2, as_bytes("hi"), batch);
  const auto datagrams = testing::datagrams_of(batch);
  ASSERT_EQ(datagrams.size(), 2u);
  EXPECT_EQ(to_hex(datagrams[0]),
            "11030000010203040000000000000000cbdf519cea9c37c0f49dd661f33892934600fd723ad2"
            "33d14490cf084ac16d1fd4c02033fbb61c37b551702a2ffa30a4602ef9dd2fe5b7d2f4785ebc"
            "364dbb0825b7960f5f");
  EXPECT_EQ(to_hex(datagrams[1]),
            "1203000001020304000000000000000102703e8247aefc5bb3b5edb1c1503aca11c18d");
}

TEST(Datagram, FragmentGoldenBytes) {
  Sealer sealer(testing::test_key(), kMinPathMtu);
  DatagramBatch batch;
  sealer.frame(Bytes(2 * payload_capacity(kMinPathMtu)), batch);
  const auto datagrams = testing::datagrams_of(batch);
  ASSERT_EQ(datagrams.size(), 3u);
  EXPECT_EQ(datagrams[0].size(), datagrams[2].size());
  EXPECT_EQ(to_hex(BytesView(datagrams[0]).first(20)), "10030003010203040000000000000000cbc7519c");
  EXPECT_EQ(to_hex(BytesView(datagrams[2]).last(20)), "3d9bbb55556b880d9d7bfc0e6a7a07e89407f015");
}

TEST(Datagram, RefusesWhatItDoesNotKnow) {
  Bytes good(kDatagramOverhead);
  write_header({.type = DatagramType::message}, HeaderBytes(good.data(), kHeaderBytes));
  ASSERT_TRUE(read_header(good));
  EXPECT_FALSE(read_header(BytesView(good).first(kDatagramOverhead - 1)));
  EXPECT_FALSE(receiver_index(BytesView(good).first(3)));
  const auto changed = [&](std::size_t at, int value) {
    Bytes bytes = good;
    bytes[at] = static_cast<std::byte>(value);
    return bytes;
  };
  EXPECT_FALSE(read_header(changed(0, 0x22)));  // version
  EXPECT_FALSE(read_header(changed(0, 0x13)));  // type
  EXPECT_FALSE(read_header(changed(2, 1)));     // an index without being a fragment
  EXPECT_FALSE(read_header(changed(0, 0x10)));  // a fragment of none
  EXPECT_FALSE(receiver_index(changed(0, 0x22)));
  Bytes fragment = changed(0, 0x10);
  fragment[3] = std::byte{65};
  EXPECT_FALSE(read_header(fragment));
  fragment[3] = std::byte{64};
  EXPECT_TRUE(read_header(fragment));
  fragment[2] = std::byte{1};  // index 1, counter 0: the first would have had -1
  EXPECT_FALSE(read_header(fragment));
}

}  // namespace
}  // namespace godwit::wire
