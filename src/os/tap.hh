#pragma once
// TAP interfaces (Documentation/networking/tuntap.rst): what the kernel sends out of the interface
// is read from the descriptor, what is written there arrives at the interface.
//
// Each frame is a virtio_net_hdr of 10 bytes and an Ethernet frame. With the offloads on, a frame
// may be a super-frame of up to 64 KiB whose checksum is not finished; the header says so.
#include <net/if.h>

#include <cstdint>
#include <string>

#include "base/bytes.hh"
#include "base/units.hh"
#include "os/fd.hh"
#include "os/netlink.hh"

namespace godwit::os {

constexpr std::size_t kVnetHeaderBytes = 10;
// The largest read: header, Ethernet with a VLAN tag, and a 64 KiB IP packet.
constexpr std::size_t kMaxFrameBytes = kVnetHeaderBytes + 18 + 65535;
constexpr unsigned kDefaultMtu = 1500;
// Frames the kernel keeps for a reader that is late; beyond it drops them (see TapPair::lost). At
// 1 Gbit/s of full frames 4096 are 50 ms.
constexpr unsigned kTapQueueFrames = 4096;

// A place to read and write frames, one at a time, without blocking. The double is MemoryTap.
class FrameDevice {
 public:
  enum class Written {
    kYes,
    kBusy,     // no room now; try again when the descriptor is writable
    kRefused,  // the kernel does not take this frame (or the interface is down): drop and count it
  };
  virtual ~FrameDevice() = default;
  // Bytes of the frame read into `into` (kMaxFrameBytes fit any), 0 when there is none now.
  virtual std::size_t read(MutableBytes into) = 0;
  virtual Written write(BytesView frame) = 0;
};

class Tap final : public FrameDevice {
 public:
  struct Options {
    std::string name;
    // Lets the interface and its settings stay when the descriptor closes; then the same name
    // attaches to it again. For uplinks, whose addresses and routes must outlive us.
    bool persistent = false;
    // UDP super-frames, where the kernel has them (Linux 6.2).
    bool udp_segmentation = true;
  };

  // Makes the interface or attaches to a persistent one of that name that nobody uses, in the
  // calling thread's namespace. It is down, or as it was left. Throws SetupError.
  static Tap open(const Options& options);
  // A descriptor of a TAP, e.g. copied from another process.
  static Result<Tap> adopt(Fd fd);
  Tap(Tap&&) noexcept = default;
  Tap& operator=(Tap&&) noexcept = default;
  ~Tap() override = default;

  std::size_t read(MutableBytes into) override;
  Written write(BytesView frame) override;

  const Fd& fd() const { return fd_; }  // for Loop::watch, or to give to QEMU
  const std::string& name() const { return name_; }
  bool udp_segmentation() const { return udp_segmentation_; }
  void set_persistent(bool persistent);
  // What `ip link` shows as NO-CARRIER when false; the owner of the other end sees its cable
  // pulled.
  void set_carrier(bool carrier);
  // Another holder of the interface (QEMU: 12 bytes) may have changed the header's size, which is
  // the interface's, not the descriptor's. read() and write() go on with 10 bytes on our side.
  void refresh_header_size();

 private:
  Tap(Fd fd, std::string name) : fd_(std::move(fd)), name_(std::move(name)) {}

  Fd fd_;
  std::string name_;
  bool udp_segmentation_ = false;
  std::size_t padding_ = 0;  // bytes of the interface's header beyond ours
};

// A TAP as a port in the host's own stack: silent, up, with this MTU and, if given, address.
struct UplinkConfig {
  std::string name;
  unsigned mtu = kDefaultMtu;
  std::string address;              // "10.9.0.1/24"; empty: none
  std::optional<MacAddress> mac{};  // else the kernel chooses one
  bool persistent = false;
};
Tap open_uplink(const UplinkConfig& config);
// A TAP as a port in an existing bridge of the host.
Tap open_bridge_port(const std::string& name, const std::string& bridge,
                     unsigned mtu = kDefaultMtu);

}  // namespace godwit::os
