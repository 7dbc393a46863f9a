#pragma once
// The nouns of the wire engine: what is configured, what is reported, and the names under which two
// engines speak of the same thing.
//
// A *port* lives at one host at one epoch; that pair is written PortEpoch, and all state in an
// engine hangs on it. A host that a port left and came back to has several of them for a while
// (epoch 1 forwarding, epoch 3 held).
#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/id.hh"
#include "base/units.hh"

namespace godwit::wire {

// Where a host's wires receive UDP. IPv4 is kept mapped (::ffff:a.b.c.d).
struct PeerAddress {
  std::array<std::byte, 16> address{};
  std::uint16_t port = 0;
  std::uint32_t scope = 0;  // interface index of an IPv6 link-local address, else 0

  auto operator<=>(const PeerAddress&) const = default;
  bool is_ipv4() const {
    for (std::size_t i = 0; i < 10; ++i) {
      if (address[i] != std::byte{}) return false;
    }
    return address[10] == std::byte{0xff} && address[11] == std::byte{0xff};
  }
};

struct PortEpoch {
  PortId port;
  Epoch epoch = 0;

  auto operator<=>(const PortEpoch&) const = default;
};

// The frames from one port to its peer form one sequence over all moves of both. It falls into
// segments: what the producer sent while it was at `producer` and addressed the peer at `address`.
// Segments follow each other in the order of these two numbers, and a forwarded frame keeps its
// label, so whoever delivers in the end can put everything in order.
struct Label {
  Epoch producer = 0;
  Epoch address = 0;

  auto operator<=>(const Label&) const = default;
};

// A channel joins two hosts for one purpose and is known to both under this name. `low` < `high`.
//   direct:  the two ports of a wire, each at an epoch; frames go both ways; label is {0, 0}
//   detour:  one port at two epochs; the old host (low) forwards one segment to the new (high)
struct ChannelId {
  WireId wire;
  PortEpoch low;
  PortEpoch high;
  Label label;

  auto operator<=>(const ChannelId&) const = default;

  static ChannelId direct(const WireId& wire, const PortEpoch& a, const PortEpoch& b);
  static ChannelId detour(const WireId& wire, const PortEpoch& from, const PortEpoch& to,
                          Label label);
  bool is_detour() const { return low.port == high.port; }
  const PortEpoch& other(const PortEpoch& end) const { return end == low ? high : low; }
};

struct ChannelIdHash {
  std::size_t operator()(const ChannelId& id) const noexcept;
};

struct PortConfig {
  PortId id;
  Epoch epoch = 1;
  std::string tenant;
};

// One wire as seen from its local port. A port has at most one wire.
struct WireConfig {
  WireId id;
  PortId local;
  PortId remote;
  Epoch remote_epoch = 1;
  std::string remote_host;  // our own name: both ports are here
};

// live: frames pass.                   forwarding: the port left; what still comes is sent after
// it. held: arriving, frames are kept.     paused: leaving; what comes is sent ahead, with a copy
// kept.
//
//   add_port ──▶ live ── pause ──▶ paused ── release ──▶ forwarding ── lease over ──▶ (gone)
//                 ▲ ▲                 │
//     prepare ──▶ held (run)          └── resume (abort) ──▶ live        held ── discard ──▶ (gone)
enum class PortState : std::uint8_t { live, held, paused, forwarding };
std::string_view to_text(PortState state);

enum class EventKind : std::uint8_t {
  prepared,        // a held port can be reached by its peer and by the host it comes from
  moved_away,      // the lease of a port that left is over; nothing of it is left here
  peer_moved,      // heard that the other end of this port's wire is now at `host`, at `epoch`:
                   // remember it for connect() after a restart
  peer_unknown,    // `host`, with a session or this one, does not know the peer of this port: look
                   // it up and connect() again with what is true; said again while it lasts
  session_needed,  // a wire needs a session with `host` that we do not have
  overflow,        // a held buffer was full; frames were dropped (once per port and move)
  wire_stopped,    // no session for longer than the keys live: frames are dropped
  wire_resumed,    // new keys after wire_stopped
  superseded,      // a higher epoch of our own live port was announced from `host`
  path_changed,    // datagrams to `host` take another way from now on: `path`, `via`
  path_lost,       // no way to `host` answers; the last one is kept until one does
};
std::string_view to_text(EventKind kind);

struct Event {
  EventKind kind{};
  PortId port{};
  Epoch epoch = 0;
  std::string host{};
  PeerAddress path{};  // of path_changed: where to
  std::string via{};   // the relaying host; empty: direct
};

// Frames and datagrams that went nowhere, by cause (docs/protocol/api.md).
using Drops = std::map<std::string, std::uint64_t>;

// Counters since the port was made here.
struct WireStats {
  WireId wire;
  PortId local, remote;
  std::string remote_host;
  Epoch epoch = 0, remote_epoch = 0;
  std::string_view state;  // "local", "connecting", "up", "stopped"
  std::uint64_t tx_frames = 0, tx_bytes = 0, rx_frames = 0, rx_bytes = 0;  // bytes of Ethernet
  Drops drops;
  Nanoseconds rtt{};
  std::uint32_t generation = 0;
  std::uint16_t path_mtu = 0;
  std::optional<PeerAddress> path;
  std::string via;              // the relaying host; empty: direct
  std::string_view path_state;  // "proven", "lost", or "unproven": nothing has answered yet
};

// One way to another host.
struct PathStats {
  PeerAddress address;
  std::string via;
  bool is_active = false;
  bool answers = false;  // the last probe, or it is still under way
  Nanoseconds rtt{};
  std::uint16_t mtu = 0;
};
struct PeerStats {
  std::string host;
  std::string_view state;  // as WireStats::path_state
  bool relays = false;     // it would forward for us
  std::vector<PathStats> paths;
};

// What this host forwarded for others.
struct RelayStats {
  std::uint64_t datagrams = 0, bytes = 0;
  std::uint64_t refused_source = 0;  // not from a proven address of a peer
  std::uint64_t refused_target = 0;  // no proven direct path to a peer of that tag
  std::uint64_t refused_rate = 0;    // beyond Limits::relay_bytes_per_second, or not allowed at all
};

struct PortStats {
  PortEpoch id;
  PortState state{};
  std::uint64_t held_frames = 0, held_bytes = 0;   // now
  std::uint64_t held_total = 0, held_dropped = 0;  // since the port was made here
  std::uint64_t forwarded = 0;
  std::uint64_t waits_expired = 0;  // for the end of a segment: a marker or its frames were lost
};

}  // namespace godwit::wire

template <>
struct std::hash<godwit::wire::PeerAddress> {
  std::size_t operator()(const godwit::wire::PeerAddress& value) const noexcept {
    const auto* text = reinterpret_cast<const char*>(value.address.data());
    return std::hash<std::string_view>{}({text, value.address.size()}) * 31 + value.port;
  }
};
