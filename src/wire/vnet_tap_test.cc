// Asks the kernel: does a TAP take every frame that check_vnet() passes? In a network namespace of
// the test's own; needs root, or is skipped.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <thread>

#include "wire/wire_testing.hh"

namespace godwit::wire {
namespace {

using testing::Random;
using testing::SuperFrameSpec;

constexpr int kFrames = 5'000;

struct Descriptor {
  int fd = -1;
  explicit Descriptor(int opened) : fd(opened) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd >= 0) close(fd);
  }
};

bool make_tap(int tap) {
  ifreq request{};
  std::strcpy(request.ifr_name, "check0");
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (ioctl(tap, TUNSETIFF, &request) != 0) return false;
  const Descriptor control(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  request.ifr_flags = IFF_UP;
  return ioctl(control.fd, SIOCSIFFLAGS, &request) == 0;
}

Bytes any_frame(Random& random) {
  if (random() % 4 == 0) return testing::plain_frame(kMinFrameBytes + random() % 3000, random);
  SuperFrameSpec spec{.is_ip6 = random() % 2 == 0,
                      .is_udp = random() % 3 == 0,
                      .has_vlan = random() % 4 == 0,
                      .payload = 1 + random() % 6000,
                      .gso_size = static_cast<std::uint16_t>(8 + random() % 1500)};
  return testing::super_frame(spec, random);
}

// Spoils the vnet header, or the headers behind it, at up to two places.
void spoil(Bytes& frame, Random& random) {
  constexpr std::uint8_t kTelling[] = {0, 1, 2, 3, 4, 5, 6, 14, 16, 34, 0x81, 0x84, 0xff};
  for (std::size_t edits = random() % 3; edits > 0; --edits) {
    const std::size_t span = random() % 2 ? kVnetBytes : std::min<std::size_t>(frame.size(), 90);
    frame[random() % span] = static_cast<std::byte>(kTelling[random() % std::size(kTelling)]);
  }
}

void write_frames(int tap, int& written, int& held_back) {
  Random random(1);
  for (int i = 0; i < kFrames; ++i) {
    Bytes frame = any_frame(random);
    spoil(frame, random);
    if (!check_vnet(frame)) {
      ++held_back;
      continue;
    }
    const ssize_t result = write(tap, frame.data(), frame.size());
    ASSERT_EQ(result, static_cast<ssize_t>(frame.size()))
        << std::strerror(errno) << " for " << to_hex(BytesView(frame).first(kMinFrameBytes));
    ++written;
  }
}

TEST(VnetTap, TheKernelTakesWhatCheckVnetPasses) {
  bool had_namespace = false;
  int written = 0;
  int held_back = 0;
  // The namespace is that of the thread, and goes with it.
  std::thread([&] {
    if (unshare(CLONE_NEWNET) != 0) return;
    const Descriptor tap(open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
    if (tap.fd < 0 || !make_tap(tap.fd)) return;
    had_namespace = true;
    write_frames(tap.fd, written, held_back);
  }).join();
  if (!had_namespace) GTEST_SKIP() << "needs root and /dev/net/tun";
  EXPECT_GT(written, kFrames / 10);
  EXPECT_GT(held_back, kFrames / 10);
}

}  // namespace
}  // namespace godwit::wire
