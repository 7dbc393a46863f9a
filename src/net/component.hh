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
#include "base/result.hh"
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

  // What it has learned, for another instance of the same settings elsewhere
  // (docs/protocol/component-state.md). From begin_state() on it keeps account of what that one has
  // not been told: at first, everything.
  virtual void begin_state() = 0;
  // Some of it, of about `most` bytes, as one message for load_state(); what has been told and
  // changes again is told again. Empty: there is nothing to tell now.
  virtual Bytes take_state(std::size_t most, Instant now) = 0;
  // How many things it would tell now.
  virtual std::size_t untold() const = 0;
  // No account is kept any more.
  virtual void end_state() = 0;
  // Damaged, or of a section or version that is not known: an error; this instance is then to be
  // thrown away.
  virtual Result<> load_state(BytesView message, Instant now) = 0;
};

}  // namespace godwit::net
