// What the kernel must offer: TAPs that are joined by nftables, pidfds, UDP in super-datagrams, and
// for the lab namespaces.
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <fstream>

#include "base/result.hh"
#include "doctor/examine.hh"
#include "doctor/judge.hh"
#include "os/netns.hh"
#include "os/tap_pair.hh"

namespace godwit::doctor {
namespace {

constexpr const char* kModules = "modprobe -a tun nf_tables nft_fwd_netdev";
constexpr int kFrameTimeMs = 1000;  // from one TAP of a pair to the other; microseconds usually

Finding try_tun() {
  const os::Fd fd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  if (fd) return ok("tun", "/dev/net/tun can be opened");
  return failed("tun", errno_text("open /dev/net/tun"),
                "modprobe tun; in a container, let the device in");
}

// A frame through a pair as vms have it.
Result<> pass_a_frame() try {
  os::TapPair pair = os::TapPair::create({.name = "doctor"});
  std::array<std::byte, os::kVnetHeaderBytes + 60> frame{};
  std::fill_n(frame.begin() + os::kVnetHeaderBytes, 6, std::byte{0xff});  // broadcast
  frame[os::kVnetHeaderBytes + 6] = std::byte{0x02};                      // a local source
  if (pair.agent_side().write(frame) != os::FrameDevice::Written::kYes) {
    return fail("the TAP takes no frame");
  }
  pollfd poll{.fd = pair.guest_fd().number(), .events = POLLIN, .revents = 0};
  std::array<std::byte, 2048> buffer;
  if (::poll(&poll, 1, kFrameTimeMs) != 1 || pair.read_untaken(buffer) != frame.size()) {
    return fail("a frame that went in at one TAP did not come out of the other");
  }
  return {};
} catch (const SetupError& error) {
  return fail("{}", error.what());
}

Finding try_tap_pair() {
  if (::geteuid() != 0) {
    return warn("tap-pair", "only root can try it", "sudo godwit doctor");
  }
  try {
    const auto passed = os::NetNamespace::create().run(pass_a_frame);
    if (passed) return ok("tap-pair", "a frame passes between two TAPs joined by nftables");
    return failed("tap-pair", passed.error().text,
                  fmt::format("{} (CONFIG_NFT_FWD_NETDEV)", kModules));
  } catch (const SetupError& error) {
    return failed("tap-pair", error.what(), "run it where network namespaces can be made");
  }
}

Finding try_segmentation() {
  const os::Fd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const int size = 1200;
  const int on = 1;
  if (fd && ::setsockopt(fd.number(), SOL_UDP, UDP_SEGMENT, &size, sizeof size) == 0 &&
      ::setsockopt(fd.number(), SOL_UDP, UDP_GRO, &on, sizeof on) == 0) {
    return ok("udp-segmentation", "UDP_SEGMENT and UDP_GRO");
  }
  return warn("udp-segmentation", errno_text("set UDP_SEGMENT"),
              "a kernel from 5.0 on has it; without it wires cost several times the CPU");
}

std::uint64_t number_in(const char* path) {
  std::uint64_t value = 0;
  std::ifstream(path) >> value;
  return value;
}

// Kernels before 5.2 do not ask.
Finding try_single_pages() {
  static constexpr const char* kSetting = "/proc/sys/vm/unprivileged_userfaultfd";
  if (::access(kSetting, F_OK) != 0 || number_in(kSetting) == 1) {
    return ok("post-copy", "QEMU may wait for single pages");
  }
  return warn("post-copy", "vms cannot come here in post-copy: vm.unprivileged_userfaultfd is 0",
              "sysctl -w vm.unprivileged_userfaultfd=1, and in /etc/sysctl.d, if you want that");
}

Finding try_namespaces() {
  for (const char* kind : {"net", "mnt", "pid"}) {
    const auto path = fmt::format("/proc/sys/user/max_{}_namespaces", kind);
    if (number_in(path.c_str()) > 0) continue;
    return warn(
        "namespaces", fmt::format("{} is 0", path),
        fmt::format("sysctl user.max_{}_namespaces=10000; only `godwit lab` needs it", kind));
  }
  return ok("namespaces", "network, mount and PID namespaces can be made");
}

}  // namespace

Findings examine_kernel() {
  utsname name{};
  ::uname(&name);
  return {judge_kernel(name.release), try_tun(),          try_tap_pair(),
          try_segmentation(),         try_single_pages(), try_namespaces()};
}

}  // namespace godwit::doctor
