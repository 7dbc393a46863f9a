#pragma once
// The wire engine: all ports, wires and channels of one wire thread. Pure: it is given the time,
// what came from guests, the network and sessions, and a sink for what goes there; it does no I/O
// and reads no clock. One thread uses it.
//
//   guest ── frames_from_port ──▶ Port ──▶ Channel ── sealed ──▶ sink.to_path
//                                  │  (peer on this host: straight to its Port)
//   guest ◀── sink.to_port ── Port ◀── Intake ◀── Channel ◀── datagrams
//
// The upper half of every receiver index that this engine gives out is its *tag*, told to all peers
// by their Endpoints. So a datagram with another's tag is to be forwarded there, which is done for
// peers only, from an address that was proven to be theirs, and only by one relay on its way.
//
// Every step of a move may be repeated, and steps that do not fit the state do nothing: callers
// that restarted, or were answered late, just say again what should be so.
#include <functional>
#include <memory>
#include <set>
#include <unordered_map>

#include "wire/due_queue.hh"
#include "wire/fabric.hh"
#include "wire/shard.hh"

namespace godwit::wire {

class Engine final : private Fabric {
 public:
  using Random = std::function<std::uint64_t()>;

  // `random` need not be secret: it picks receiver indices and serials.
  Engine(std::string self, EngineSink& sink, Random random, Limits limits = {}, Shard shard = {});
  ~Engine() override;

  // ---- sessions, by host name ----
  // `secret` is the TLS exporter's output, the same on both sides; `addresses` are where the peer
  // receives UDP, best first.
  void session_up(const std::string& peer, std::span<const std::byte, 32> secret, bool is_initiator,
                  std::span<const PeerAddress> addresses, Instant now);
  void session_down(const std::string& peer, Instant now);
  // Under which addresses this host was configured to be reached.
  void use_addresses(std::vector<PeerAddress> addresses, Instant now);
  // The host's interfaces have other addresses than before: what is known of paths is in doubt.
  void addresses_changed(Instant now);
  // A control message of the peer's engine.
  void control(const std::string& peer, BytesView message, Instant now);

  // ---- traffic ----
  void frames_from_port(const PortId& port, std::span<const BytesView> frames, Instant now);
  // Datagrams of `segment_size` bytes each (the last may be shorter), decrypted in place.
  void datagrams(const PeerAddress& from, MutableBytes run, std::uint16_t segment_size,
                 Instant now);
  void tick(Instant now);
  Instant next_tick() const;
  // For tests: who would not be ticked by when he has something to do; empty: nobody.
  std::string overlooked() const;
  // How many ports, paths and channels were ticked so far.
  std::uint64_t ticked() const { return ticked_; }

  // ---- from the other shards (shard.hh) ----
  void use_route(const std::string& peer, const Route& route, Instant now);
  void frames_sent(const std::string& peer, Instant now);
  // To the first: receiver indices lead to `shard` now, another one.
  void indices_moved(std::span<const std::uint32_t> indices, std::uint16_t shard);
  void forget_index(std::uint32_t index) { by_index_.erase(index); }
  // Ports at all their epochs with their channels, on their way to another shard, whose engine
  // adopts them before it is told anything of them, and knows the same sessions. A wire has both
  // its ends in one shard.
  struct Travelling {
    std::unique_ptr<Channel> channel;
    std::string host;
    std::vector<std::uint32_t> indices{};
  };
  struct Unit;
  std::shared_ptr<Unit> take(std::span<const PortId> ports, Instant now);
  void adopt(Unit& unit, Instant now);

  // ---- ports and wires ----
  void add_port(const PortConfig& config, Instant now);
  void remove_port(const PortId& port, Instant now);
  // False, and nothing happens, when the local port is not here or is the remote one.
  bool connect(const WireConfig& wire, Instant now);
  void disconnect(const WireId& wire, Instant now);

  // ---- moving: at the source ----
  void offer_move(const PortId& port, const std::string& to_host, Epoch new_epoch, Instant now);
  // The guest stands and its last frames were given to frames_from_port(). `undelivered`: what it
  // did not take of what went to_port. Ends the segment and forwards from here on.
  void pause(const PortId& port, std::span<const BytesView> undelivered, Instant now);
  void resume(const PortId& port, Instant now);   // the move is off; also before pause
  void release(const PortId& port, Instant now);  // committed: moved_away follows after the lease
  // Committed, but paused by an engine before this one: since the restart it is live here again,
  // and there is nothing to forward. moved_away follows at once.
  void drop_live(const PortEpoch& id, Instant now);
  // ---- moving: at the target ----
  // `config.epoch` is the new one. `wires` has at most one wire. Leads to the event `prepared`.
  void prepare(const PortConfig& config, const std::string& from_host,
               std::span<const WireConfig> wires, Instant now);
  void run(const PortId& port, Instant now);
  void discard(const PortId& port, Instant now);

  std::vector<WireStats> wire_stats() const;
  std::vector<PortStats> port_stats() const;
  // Of the newest epoch of the port here; nothing when it is not here.
  std::optional<PortStats> port_stats(const PortId& port) const;
  // The epoch at which the port is live here, if it is.
  std::optional<Epoch> live_epoch(const PortId& port) const;
  // Datagrams with a receiver index that we did not give out.
  std::uint64_t stray_datagrams() const { return strays_; }
  std::uint64_t bad_control() const { return bad_control_; }
  std::vector<PeerStats> peer_stats() const;
  const RelayStats& relay_stats() const { return relayed_; }

 private:
  class Call;
  // Below this nothing is worth forgetting.
  static constexpr std::size_t kFewPeers = 32;

  // Fabric
  const std::string& self() const override { return self_; }
  const Limits& limits() const override { return limits_; }
  EngineSink& sink() override { return sink_; }
  Instant now() const override { return now_; }
  void wake(Port& port, Instant due) override;
  void wake(Channel& channel, Instant due) override;
  void wake(Paths& paths, Instant due) override;
  std::uint64_t random() override { return random_(); }
  bool has_aes() const override { return has_aes_; }
  FramePool& frame_pool() override { return frame_pool_; }
  Port* port(const PortEpoch& id) override;
  std::uint64_t channel_deletions() const override { return channel_deletions_; }
  Channel* find_channel(const ChannelId& id) override;
  Channel* open_channel(const ChannelId& id, const PortEpoch& local,
                        const std::string& host) override;
  void retire_channel(const ChannelId& id, Instant when) override;
  void retire_channels(const PortEpoch& local) override;
  bool detour_confirmed(const PortEpoch& to) override;
  std::vector<Nanoseconds> rtts(const PortEpoch& local) override;
  void add_drops(const PortEpoch& local, Drops& drops) const override;
  void has_output(Channel& channel) override;
  std::uint32_t take_index(Channel& channel) override { return take_index({&channel, nullptr}); }
  std::uint32_t take_index(Paths& paths) override { return take_index({nullptr, &paths}); }
  void release_index(std::uint32_t index) override;
  std::vector<PeerAddress> own_addresses() const override;
  void note_reflexive(const std::string& observer, const PeerAddress& seen) override;
  void note_tag(std::uint32_t index, Peer& peer) override;
  void note_proven(const PeerAddress& address, Peer& peer) override;
  std::string host_at(const PeerAddress& address, const std::string& except) const override;
  std::vector<std::pair<std::string, PeerAddress>> relays_to(
      const std::string& host) const override;
  void path_changed(Peer& peer) override;
  void mtu_changed(Peer& peer) override;
  DatagramBatch& scratch() override { return scratch_; }

  struct Destination {  // of a receiver index: one of them
    Channel* channel = nullptr;
    Paths* paths = nullptr;
    std::optional<std::uint16_t> shard{};  // its channel is there
  };
  std::uint32_t take_index(Destination destination);
  void refresh_route(Peer& peer);
  void use_new_way(Peer& peer);
  void wake_owner(const Channel& channel);
  // Who is to have a datagram: the host with the tag, and of this host the shard.
  struct Taker {
    std::uint16_t tag = 0, shard = 0;
    bool operator==(const Taker&) const = default;
  };
  Taker taker_of(std::uint32_t index) const;
  void arrived(const PeerAddress& from, std::uint32_t index, MutableBytes datagram);
  Travelling let_go(Channel& channel);
  void pass_on(const PeerAddress& from, Taker to, BytesView run, std::uint16_t segment_size);
  void note_sent(Peer& peer);
  void relay(const PeerAddress& from, std::uint16_t tag, BytesView run, std::uint16_t segment_size);
  Peer* proven_source(const PeerAddress& from) const;
  bool within_relay_rate(std::size_t bytes);
  void publish_addresses();
  Port* newest(const PortId& port, std::optional<PortState> state = {}) const;
  void erase_port(PortEpoch id);
  void erase_channel(Channel& channel);
  std::span<Channel* const> channels_of(const PortEpoch& port) const;
  Peer& peer(const std::string& host);
  Channel* admitted_channel(const std::string& host, const ChannelId& id);
  void wake_ends(const WireId& wire);
  void erase_retired(const PortEpoch& port);
  void forget_peers();
  void stranger_notice(const std::string& host, const Notify& notify);
  void flush();
  void send(Peer& to);

  const std::string self_;
  EngineSink& sink_;
  Random random_;
  const Limits limits_;
  const Shard shard_;
  const bool has_aes_;
  Instant now_{};
  Instant forget_next_{};

  // Before what has a place in them.
  DueQueue<Port> ports_due_;
  DueQueue<Paths> paths_due_;
  DueQueue<Channel> channels_due_;
  // Before what gives its indices back at its end.
  std::unordered_map<std::uint32_t, Destination> by_index_;
  std::set<std::uint32_t> travelled_;  // of channels that were in other shards
  const std::uint16_t tag_;
  std::uint16_t next_index_;
  std::vector<PeerAddress> configured_, published_;
  std::map<std::string, PeerAddress> reflexive_;  // by who saw it
  std::unordered_map<PeerAddress, Peer*> sources_;
  std::unordered_map<std::uint16_t, Peer*> tags_;
  RelayStats relayed_;
  double relay_tokens_ = 0;  // bytes
  Instant relay_refilled_{};
  DatagramBatch scratch_;

  FramePool frame_pool_;
  std::map<std::string, Peer> peers_;
  std::map<PortEpoch, std::unique_ptr<Port>> ports_;
  std::set<std::pair<WireId, PortEpoch>> wired_;  // the wires of ports_
  std::unordered_map<ChannelId, std::unique_ptr<Channel>, ChannelIdHash> channels_;
  std::map<PortEpoch, std::vector<Channel*>> channels_of_;  // those of a port, if any
  std::vector<Channel*> output_;
  std::uint64_t channel_deletions_ = 0;
  std::uint64_t strays_ = 0, bad_control_ = 0, ticked_ = 0;
};

struct Engine::Unit {
  std::vector<std::unique_ptr<Port>> ports{};
  std::vector<Travelling> channels{};

  Unit();
  ~Unit();
  std::vector<std::uint32_t> indices() const;
};

// One call from outside: sets the time, and sends what was sealed when it ends.
class Engine::Call final {
 public:
  Call(Engine& engine, Instant now) : engine_(engine) {
    engine_.now_ = std::max(engine_.now_, now);
  }
  ~Call() { engine_.flush(); }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

 private:
  Engine& engine_;
};

}  // namespace godwit::wire
