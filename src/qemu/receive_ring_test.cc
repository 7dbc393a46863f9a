#include "qemu/receive_ring.hh"

#include <gmock/gmock.h>

namespace godwit::qemu {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// The way there through a real guest: real_qemu_test.cc.
TEST(ReceiveRing, MemoryIsReadAsTheMonitorPrintsIt) {
  EXPECT_THAT(parse_words("0000000005c40008: 0x00000123 0x00000048 0xffffffff 0x00000000\r\n"
                          "0000000005c40018: 0x00000001\r\n"),
              ElementsAre(0x123U, 0x48U, 0xffffffffU, 0U, 1U));
}

TEST(ReceiveRing, AnythingElseIsNoMemory) {
  EXPECT_THAT(parse_words("Cannot access memory\r\n"), IsEmpty());
  EXPECT_THAT(parse_words("0000000005c40008: 0x00000123 oops\r\n"), IsEmpty());
  EXPECT_THAT(parse_words("0000000005c40008: 0x123456789\r\n"), IsEmpty());
  EXPECT_THAT(parse_words(""), IsEmpty());
}

}  // namespace
}  // namespace godwit::qemu
