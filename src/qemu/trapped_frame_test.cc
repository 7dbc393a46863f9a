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
  const auto recovered = nic.recover({frame('c'), frame('d'), plug_frame()}, {});
  EXPECT_THAT(recovered.frames, ElementsAre(frame('b'), frame('c'), frame('d')));
}

TEST_F(Written, WithThePlugAloneTheLastFrameIsTrapped) {
  EXPECT_THAT(nic.recover({plug_frame()}, {}).frames, ElementsAre(frame('d')));
}

TEST_F(Written, AQemuThatTookThePlugTrappedNothing) {
  EXPECT_THAT(nic.recover({}, {}).frames, IsEmpty());
}

// Behind the virtio header of its buffer, which has two bytes more.
Bytes received(char name) { return Bytes(72, static_cast<std::byte>(name)); }

TEST_F(Written, TheFrameBeforeTheTrappedOneWasDroppedIfTheGuestGotTheOneBefore) {
  const auto recovered = nic.recover({frame('d'), plug_frame()}, received('a'));
  EXPECT_THAT(recovered.frames, ElementsAre(frame('b'), frame('c'), frame('d')));
  EXPECT_EQ(recovered.trapped, frame('c'));
}

TEST_F(Written, TheLastFrameWasDroppedIfTheGuestGotTheOneBefore) {
  const auto recovered = nic.recover({}, received('c'));
  EXPECT_THAT(recovered.frames, ElementsAre(frame('d')));
  EXPECT_THAT(recovered.trapped, IsEmpty());
}

TEST_F(Written, NothingWasDroppedIfTheGuestGotTheLastOne) {
  EXPECT_THAT(nic.recover({}, received('d')).frames, IsEmpty());
  EXPECT_THAT(nic.recover({frame('d'), plug_frame()}, received('b')).frames,
              ElementsAre(frame('c'), frame('d')));
}

TEST_F(Written, WithoutProofNothingIsSentTwice) {
  EXPECT_THAT(nic.recover({}, received('x')).frames, IsEmpty());
  EXPECT_THAT(nic.recover({}, {}).frames, IsEmpty());
}

TEST(TrappedFrame, OneFromBeforeArmingIsReportedAsLost) {
  const auto recovered = TrappedFrame().recover({plug_frame()}, {});
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
  EXPECT_TRUE(nic.recover({std::vector<Bytes>(kMaxKeptFrames, frame('x'))}, {}).frames.size() ==
              kMaxKeptFrames);
}

}  // namespace
}  // namespace godwit::qemu
