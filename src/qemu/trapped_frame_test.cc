#include "qemu/trapped_frame.hh"

#include <gmock/gmock.h>

namespace godwit::qemu {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

Bytes frame(char name) { return Bytes(70, static_cast<std::byte>(name)); }

struct Written : ::testing::Test {
  Written() {
    for (const char name : {'a', 'b', 'c', 'd'}) nic.wrote(frame(name));
  }
  TrappedFrame nic;
};

TEST_F(Written, TheFrameBeforeTheFirstUntakenOneIsTrapped) {
  const auto recovered = nic.recover({frame('c'), frame('d'), plug_frame()});
  EXPECT_THAT(recovered.frames, ElementsAre(frame('b'), frame('c'), frame('d')));
}

TEST_F(Written, WithThePlugAloneTheLastFrameIsTrapped) {
  EXPECT_THAT(nic.recover({plug_frame()}).frames, ElementsAre(frame('d')));
}

TEST_F(Written, AQemuThatTookThePlugTrappedNothing) {
  EXPECT_THAT(nic.recover({}).frames, IsEmpty());
}

TEST(TrappedFrame, OneFromBeforeArmingIsReportedAsLost) {
  const auto recovered = TrappedFrame().recover({plug_frame()});
  EXPECT_THAT(recovered.frames, IsEmpty());
  EXPECT_TRUE(recovered.lost_one);
}

TEST(TrappedFrame, APlugIsKnownWhateverItsVirtioHeader) {
  Bytes plug = plug_frame();
  plug[0] = std::byte{1};
  EXPECT_TRUE(is_plug(plug));
  plug[12] = std::byte{0};
  EXPECT_FALSE(is_plug(plug));
}

TEST(TrappedFrame, CopiesAreBounded) {
  TrappedFrame nic;
  for (std::size_t i = 0; i < kMaxKeptFrames + 5; ++i) nic.wrote(frame('x'));
  EXPECT_TRUE(nic.recover({std::vector<Bytes>(kMaxKeptFrames, frame('x'))}).frames.size() ==
              kMaxKeptFrames);
}

}  // namespace
}  // namespace godwit::qemu
