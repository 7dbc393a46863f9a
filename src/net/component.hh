#pragma once
// A network function with ports that wires lead to: what a wire thread has between its wires. Pure:
// it is given the time, frames and an outlet; it does no I/O. One thread uses it.
//
//   wire ──▶ port 0 ── handle ──▶ Component ── Outlet::send ──▶ port 1 ──▶ wire
//
// Frames are as TAPs give them: virtio_net_hdr (wire/vnet.hh), then Ethernet; also super-frames.
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.hh"
#include "base/units.hh"

namespace godwit::net {

using PortIndex = std::uint16_t;  // of a component's ports
inline constexpr std::size_t kMostPorts = 1024;

// The frames are the component's until the call returns.
class Outlet {
 public:
  virtual ~Outlet() = default;
  virtual void send(PortIndex port, std::span<const BytesView> frames) = 0;
};

// Since the port was made here. Bytes are those of Ethernet.
struct PortCounters {
  std::uint64_t rx_frames = 0, rx_bytes = 0, tx_frames = 0, tx_bytes = 0;
  std::map<std::string_view, std::uint64_t> drops{};  // of what came in, or cannot leave, by cause
};

class Component {
 public:
  virtual ~Component() = default;
  // What came in at `port`, in order. The bytes are the component's to change until it returns.
  virtual void handle(PortIndex port, std::span<const MutableBytes> frames, Instant now,
                      Outlet& out) = 0;
  // Time passes: forgets what is too old, asks again. When it wants to be called again.
  virtual Instant tick(Instant now, Outlet& out) = 0;
  virtual std::vector<PortCounters> counters() const = 0;
};

}  // namespace godwit::net
