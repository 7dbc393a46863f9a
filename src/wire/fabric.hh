#pragma once
// What the parts of an engine (ports, channels) ask of the engine that owns them, and the engine's
// outer edge. Everything here belongs to one wire thread.
#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "wire/batch.hh"
#include "wire/control.hh"
#include "wire/fragment.hh"
#include "wire/limits.hh"
#include "wire/shard.hh"
#include "wire/types.hh"

namespace godwit::wire {

// Where an engine's results go; implemented by the agent's wire thread and by the simulation. Calls
// come from inside the engine's methods and must not call back into it.
class EngineSink {
 public:
  virtual ~EngineSink() = default;
  // Frames with their vnet header, in order, valid during the call.
  virtual void to_port(PortId port, std::span<const BytesView> frames) = 0;
  virtual void to_path(const PeerAddress& address, const DatagramBatch& batch) = 0;
  // Datagrams of another host, to be sent at once or dropped: a relay keeps no queue.
  virtual void relay(const PeerAddress& address, BytesView run, std::uint16_t segment_size) = 0;
  // One control message, to be pushed over the session with `peer`; lost if it is down.
  virtual void to_control(const std::string& peer, BytesView message) = 0;
  virtual void event(const Event& event) = 0;
};

class Channel;
class Paths;
class Port;

// Another host, as long as anything here concerns it.
struct Peer {
  Peer();
  ~Peer();

  std::string host;
  bool up = false;  // a session exists; `secret` and what follows are of it
  std::array<std::byte, 32> secret{};
  std::uint32_t session_tag = 0;
  bool is_initiator = false;
  std::uint32_t next_generation = 1;  // of keys we offer: never reused within the session
  // Generations that the peer has offered us, by its shard: older ones are refused.
  std::array<std::uint32_t, kMostShards> highest_offered{};
  std::size_t channels = 0;
  Route route;
  std::unique_ptr<Paths> paths;    // null but in the first shard; `route` is what they say
  std::optional<Instant> down_at;  // since then there is no session
  std::optional<Instant> sent_told;
  DatagramBatch batch;        // on its way by the active path
  bool sends_frames = false;  // some of it is of frames
};

class Fabric {
 public:
  virtual ~Fabric() = default;
  virtual const std::string& self() const = 0;
  virtual const Limits& limits() const = 0;
  virtual EngineSink& sink() = 0;
  virtual Instant now() const = 0;  // of the call being served
  // Tick it no later than this.
  virtual void wake(Port& port, Instant due) = 0;
  virtual void wake(Channel& channel, Instant due) = 0;
  virtual void wake(Paths& paths, Instant due) = 0;
  virtual std::uint64_t random() = 0;
  virtual bool has_aes() const = 0;
  virtual FramePool& frame_pool() = 0;

  // Null when there is none.
  virtual Port* port(const PortEpoch& id) = 0;
  virtual Channel* find_channel(const ChannelId& id) = 0;
  // Grows whenever a channel was deleted: pointers to channels from before may dangle.
  virtual std::uint64_t channel_deletions() const = 0;
  // Found, or made towards `host` for the port `local`. Null when the port has too many.
  virtual Channel* open_channel(const ChannelId& id, const PortEpoch& local,
                                const std::string& host) = 0;
  virtual void retire_channel(const ChannelId& id, Instant when) = 0;
  // All of the port, now.
  virtual void retire_channels(const PortEpoch& local) = 0;
  // Some host that `to` comes from can be heard and answered.
  virtual bool detour_confirmed(const PortEpoch& to) = 0;
  // Of all channels of the port, longest first.
  virtual std::vector<Nanoseconds> rtts(const PortEpoch& local) = 0;
  virtual void add_drops(const PortEpoch& local, Drops& drops) const = 0;  // of the same
  virtual void has_output(Channel& channel) = 0;  // flush it before the call returns
  virtual std::uint32_t take_index(Channel& channel) = 0;
  virtual std::uint32_t take_index(Paths& paths) = 0;
  virtual void release_index(std::uint32_t index) = 0;

  // ---- for Paths ----
  // Where others may find this host: what it was told, and what peers saw.
  virtual std::vector<PeerAddress> own_addresses() const = 0;
  virtual void note_reflexive(const std::string& observer, const PeerAddress& seen) = 0;
  // The peer's receiver indices have the tag of this one.
  virtual void note_tag(std::uint32_t index, Peer& peer) = 0;
  // The peer can be heard at, and hears at, this address of its own.
  virtual void note_proven(const PeerAddress& address, Peer& peer) = 0;
  // The host whose proven address this is, unless it is `except`: it forwarded something.
  virtual std::string host_at(const PeerAddress& address, const std::string& except) const = 0;
  // Hosts that may forward to `host`, the nearest first, and where they are.
  virtual std::vector<std::pair<std::string, PeerAddress>> relays_to(
      const std::string& host) const = 0;
  virtual void path_changed(Peer& peer) = 0;
  virtual void mtu_changed(Peer& peer) = 0;
  virtual DatagramBatch& scratch() = 0;  // empty; to be left so
};

}  // namespace godwit::wire
