#include "wire/control.hh"

#include <gtest/gtest.h>

#include <random>

namespace godwit::wire {
namespace {

ChannelId some_channel() {
  ChannelId id;
  id.wire.bytes.fill(std::byte{0xaa});
  id.low.port.bytes.fill(std::byte{1});
  id.low.epoch = 2;
  id.high.port.bytes.fill(std::byte{3});
  id.high.epoch = 4;
  return id;
}

const std::string kChannelHex =
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    "0101010101010101010101010101010100000002"
    "0303030303030303030303030303030300000004"
    "0000000000000000";

PeerAddress some_address(std::uint8_t last) {
  PeerAddress address;
  address.address[10] = address.address[11] = std::byte{0xff};
  address.address[12] = std::byte{10};
  address.address[15] = static_cast<std::byte>(last);
  address.port = 4747;
  return address;
}

TEST(Control, GoldenBytesOfEndpoints) {
  EXPECT_EQ(to_hex(encode(Endpoints{0x01020304, 5, 0xabcd0007, true, {some_address(9)}})),
            "0105"
            "01020304"
            "0000000000000005"
            "abcd0007"
            "01"
            "01"
            "00000000000000000000ffff0a000009128b");
  EXPECT_EQ(to_hex(encode(EndpointsTaken{0x01020304, 5})),
            "0106"
            "01020304"
            "0000000000000005");
}

TEST(Control, RefusesTooManyEndpoints) {
  Endpoints endpoints{1, 2, 3, false, {}};
  for (std::size_t i = 0; i < kMaxAddresses; ++i) {
    endpoints.addresses.push_back(some_address(static_cast<std::uint8_t>(i)));
  }
  Bytes bytes = encode(endpoints);
  EXPECT_EQ(decode_control(bytes), ControlMessage(endpoints));
  bytes[19] = static_cast<std::byte>(kMaxAddresses + 1);
  bytes.resize(bytes.size() + 18);
  EXPECT_FALSE(decode_control(bytes));
}

TEST(Control, GoldenBytes) {
  EXPECT_EQ(to_hex(encode(Want{some_channel(), 0x01020304, 5, true})), "0101" + kChannelHex +
                                                                           "01020304"
                                                                           "0000000000000005"
                                                                           "01");
  EXPECT_EQ(to_hex(encode(Offer{some_channel(), 0x01020304, 5, 6, 7, 1})), "0102" + kChannelHex +
                                                                               "01020304"
                                                                               "0000000000000005"
                                                                               "00000006"
                                                                               "00000007"
                                                                               "01");
  const End end{End::Kind::eof, 3, 9, 6, 1000};
  EXPECT_EQ(to_hex(encode(Notify{some_channel(), 8, end})), "0103" + kChannelHex +
                                                                "0000000000000008"
                                                                "01"
                                                                "02"
                                                                "00000003"
                                                                "0000000000000009"
                                                                "00000006"
                                                                "00000000000003e8");
  EXPECT_EQ(to_hex(encode(Acknowledge{some_channel(), 8})),
            "0104" + kChannelHex + "0000000000000008");
  const Move move{{some_channel().low.port, 2}, "west-1", 4};
  EXPECT_EQ(to_hex(encode_in_channel(8, move)),
            "0000000000000008"
            "02"
            "01010101010101010101010101010101"
            "00000002"
            "06"
            "776573742d31"
            "00000004");
  const Announce announce{{some_channel().low.port, 2}, ""};
  EXPECT_EQ(to_hex(encode_in_channel(8, announce)),
            "0000000000000008"
            "03"
            "01010101010101010101010101010101"
            "00000002"
            "00");
  const Handover handover{true, {1, 2}, {3, "p"}, milliseconds(40), {{4, "q"}}, {{5, 6}}};
  EXPECT_EQ(to_hex(encode_in_channel(8, handover)),
            "0000000000000008"
            "04"
            "01"
            "0000000100000002"
            "00000003"
            "0170"
            "00009c40"
            "01"
            "00000004"
            "0171"
            "01"
            "0000000500000006");
}

std::vector<ControlMessage> samples() {
  const ChannelId id = some_channel();
  return {Want{id, 1, 2, false},
          Offer{id, 1, 2, 3, 4, 2},
          Acknowledge{id, 77},
          Endpoints{7, 8, 9, true, {some_address(1), some_address(2)}},
          EndpointsTaken{7, 8},
          Notify{id, 5, End{End::Kind::flush, 3, 9, 0, 0}},
          Notify{id, 6, Move{id.high, "east", 1}},
          Notify{id, 7, Announce{id.high, "east"}},
          Notify{id, 8, Handover{false, {1, 1}, {2, "p"}, {}, {{3, "q"}, {4, "r"}}, {}}}};
}

TEST(Control, RoundTrip) {
  for (const ControlMessage& message : samples()) {
    const auto decoded = decode_control(encode(message));
    ASSERT_TRUE(decoded);
    EXPECT_EQ(*decoded, message);
  }
}

TEST(Control, RefusesTheShortTheLongAndTheWrong) {
  for (const ControlMessage& message : samples()) {
    Bytes bytes = encode(message);
    for (std::size_t size = 0; size < bytes.size(); ++size) {
      EXPECT_FALSE(decode_control(BytesView(bytes).first(size)));
    }
    bytes.push_back(std::byte{0});
    EXPECT_FALSE(decode_control(bytes));
    bytes.pop_back();
    bytes[0] = std::byte{2};  // another version
    EXPECT_FALSE(decode_control(bytes));
  }
  ChannelId reversed = some_channel();
  std::swap(reversed.low, reversed.high);
  EXPECT_FALSE(decode_control(encode(Acknowledge{reversed, 1})));
  EXPECT_FALSE(decode_control(encode(Notify{some_channel(), 1, Move{{}, "Not A Name", 1}})));
  EXPECT_FALSE(decode_control(encode(Notify{some_channel(), 1, Move{{}, "", 1}})));
}

// What decodes at all means what it says: encoding it again gives the same message.
TEST(Control, MutatedBytesDecodeToWhatTheySay) {
  std::mt19937 random(1);
  for (int round = 0; round < 3000; ++round) {
    for (const ControlMessage& message : samples()) {
      Bytes bytes = encode(message);
      for (int i = 0; i < 3; ++i)
        bytes[random() % bytes.size()] ^= static_cast<std::byte>(random());
      if (const auto decoded = decode_control(bytes)) {
        EXPECT_EQ(decode_control(encode(*decoded)), decoded);
      }
    }
  }
}

}  // namespace
}  // namespace godwit::wire
