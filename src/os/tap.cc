#include "os/tap.hh"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/check.hh"
#include "base/result.hh"

namespace godwit::os {
namespace {

// linux/if_tun.h has these since 6.2; our headers are older.
constexpr unsigned kOffloadUdp4 = 0x20;  // TUN_F_USO4
constexpr unsigned kOffloadUdp6 = 0x40;  // TUN_F_USO6
constexpr unsigned kOffloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
constexpr std::size_t kMaxHeaderPadding = 64;
// A process that has ended may have a TAP some milliseconds longer: the kernel takes its io_uring
// apart when it likes, and QEMU's main loop has one.
constexpr int kLastHold = 500;  // milliseconds

int header_size(const Fd& fd) {
  int size = 0;
  if (::ioctl(fd.number(), TUNGETVNETHDRSZ, &size) != 0) return 0;
  return size;
}

Fd open_attached(const std::string& name) {
  Fd fd(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!fd) fail_setup("{}; is the tun module there?", errno_text("open /dev/net/tun"));
  ifreq request{};
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  std::memcpy(request.ifr_name, name.data(), name.size());
  int result = ::ioctl(fd.number(), TUNSETIFF, &request);
  for (int waited = 0; result != 0 && errno == EBUSY && waited < kLastHold; ++waited) {
    ::poll(nullptr, 0, 1);
    result = ::ioctl(fd.number(), TUNSETIFF, &request);
  }
  if (result != 0) {
    if (errno == EBUSY) fail_setup("open TAP {}: another process has it", name);
    fail_setup("{}", errno_text(fmt::format("open TAP {}", name)));
  }
  return fd;
}

}  // namespace

Tap Tap::open(const Options& options) {
  if (options.name.empty() || options.name.size() > kInterfaceNameLimit) {
    fail_setup("TAP name '{}': 1 to {} characters are allowed", options.name, kInterfaceNameLimit);
  }
  Tap tap(open_attached(options.name), options.name);
  int size = kVnetHeaderBytes;
  if (::ioctl(tap.fd_.number(), TUNSETVNETHDRSZ, &size) != 0) {
    fail_setup("{}", errno_text(fmt::format("set the frame header of TAP {}", options.name)));
  }
  // Only after TUNSETIFF: before, the kernel says EBADFD.
  const unsigned udp = kOffloadUdp4 | kOffloadUdp6;
  tap.udp_segmentation_ =
      options.udp_segmentation && ::ioctl(tap.fd_.number(), TUNSETOFFLOAD, kOffloads | udp) == 0;
  if (!tap.udp_segmentation_ && ::ioctl(tap.fd_.number(), TUNSETOFFLOAD, kOffloads) != 0) {
    fail_setup("{}", errno_text(fmt::format("set the offloads of TAP {}", options.name)));
  }
  if (options.persistent) tap.set_persistent(true);
  return tap;
}

Result<Tap> Tap::adopt(Fd fd) {
  ifreq request{};
  if (::ioctl(fd.number(), TUNGETIFF, &request) != 0) {
    return fail("{}", errno_text("adopt a TAP's descriptor"));
  }
  if ((request.ifr_flags & IFF_TAP) == 0 || (request.ifr_flags & IFF_VNET_HDR) == 0) {
    return fail("adopt TAP {}: it has no frames with virtio headers", request.ifr_name);
  }
  Tap tap(std::move(fd), request.ifr_name);
  set_nonblocking(tap.fd_);
  tap.refresh_header_size();
  return tap;
}

void Tap::refresh_header_size() {
  const auto size = static_cast<std::size_t>(header_size(fd_));
  CHECK(size >= kVnetHeaderBytes && size <= kVnetHeaderBytes + kMaxHeaderPadding, "{} bytes", size);
  padding_ = size - kVnetHeaderBytes;
}

std::size_t Tap::read(MutableBytes into) {
  CHECK(into.size() > kVnetHeaderBytes);
  std::array<std::byte, kMaxHeaderPadding> ignored;
  const auto body = into.subspan(kVnetHeaderBytes);
  const std::array<iovec, 3> parts{
      {{into.data(), kVnetHeaderBytes}, {ignored.data(), padding_}, {body.data(), body.size()}}};
  const auto got = ::readv(fd_.number(), parts.data(), static_cast<int>(parts.size()));
  if (got <= 0) return 0;  // EAGAIN; EBADFD when the interface was deleted: then nothing comes
  const auto size = static_cast<std::size_t>(got);
  return size > kVnetHeaderBytes + padding_ ? size - padding_ : 0;
}

FrameDevice::Written Tap::write(BytesView frame) {
  if (frame.size() <= kVnetHeaderBytes) return Written::kRefused;
  // Zeros: num_buffers of the longer virtio header, which a TAP ignores on the way in.
  std::array<std::byte, kMaxHeaderPadding> zeros{};
  auto* data = const_cast<std::byte*>(frame.data());
  const std::array<iovec, 3> parts{{{data, kVnetHeaderBytes},
                                    {zeros.data(), padding_},
                                    {data + kVnetHeaderBytes, frame.size() - kVnetHeaderBytes}}};
  const auto put = ::writev(fd_.number(), parts.data(), static_cast<int>(parts.size()));
  if (put >= 0) return Written::kYes;
  return errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM || errno == EINTR
             ? Written::kBusy
             : Written::kRefused;
}

void Tap::set_persistent(bool persistent) {
  if (::ioctl(fd_.number(), TUNSETPERSIST, persistent ? 1UL : 0UL) != 0) {
    fail_setup("{}", errno_text(fmt::format("make TAP {} persistent", name_)));
  }
}

void Tap::set_carrier(bool carrier) {
  const int on = carrier ? 1 : 0;
  if (::ioctl(fd_.number(), TUNSETCARRIER, &on) != 0) {
    fail_setup("{}", errno_text(fmt::format("set the carrier of TAP {}", name_)));
  }
}

Tap open_uplink(const UplinkConfig& config) {
  Tap tap = Tap::open({.name = config.name, .persistent = config.persistent});
  Netlink netlink;
  netlink.set_mtu(config.name, config.mtu);
  netlink.set_queue_length(config.name, kTapQueueFrames);
  netlink.silence_ipv6(config.name);
  if (config.mac) netlink.set_mac(config.name, *config.mac);
  netlink.set_up(config.name);
  if (!config.address.empty()) netlink.add_address(config.name, config.address);
  return tap;
}

Tap open_bridge_port(const std::string& name, const std::string& bridge, unsigned mtu) {
  Tap tap = open_uplink({.name = name, .mtu = mtu, .address = {}});
  Netlink().set_master(name, bridge);
  return tap;
}

}  // namespace godwit::os
