#pragma once
// A port at one host at one epoch, the end of at most one wire: what the guest sends goes to where
// the peer is, what comes for it is put in order (Intake) and delivered, kept or forwarded as its
// state says (types.hh, PortState). Owned by the Engine, on its thread.
//
// Moving is in move.cc; how the pieces fit is in docs/protocol/wire-move.md.
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>

#include "wire/channel.hh"
#include "wire/due_queue.hh"
#include "wire/fabric.hh"
#include "wire/intake.hh"

namespace godwit::wire {

struct PortCounters {
  std::uint64_t tx_frames = 0, tx_bytes = 0, rx_frames = 0, rx_bytes = 0;
  std::uint64_t forwarded = 0;
  std::uint64_t unwired = 0;          // no wire, or not the one any more that it came by
  std::uint64_t not_live = 0;         // from the guest, in a state in which it must not send
  std::uint64_t bad_size = 0;         // from the guest, shorter than a header
  std::uint64_t no_peer = 0;          // the peer should be here, and is not
  std::uint64_t no_channel = 0;       // the port has too many channels to open the one to go by
  std::uint64_t incomplete_ends = 0;  // segments of which some datagrams did not arrive in time
};

class Port final : public Channel::Receiver {
 public:
  Port(const PortConfig& config, PortState state, Fabric& fabric);

  PortEpoch id() const { return {config_.id, config_.epoch}; }
  const PortConfig& config() const { return config_; }
  PortState state() const { return state_; }
  const std::optional<WireConfig>& wire() const { return wire_; }

  // To another engine of this host, with all channels of this port.
  void leave() { place_.leave(); }
  void enter(Fabric& fabric);

  // ---- wiring ----
  // Repeating it is harmless; a higher remote epoch is learned as if the peer had moved.
  void connect(const WireConfig& wire);
  void disconnect();
  // Whether `host` may open the channel: the peer is, was or will be there (or we, for a detour).
  bool admits(const ChannelId& id, const std::string& host) const;
  void session_up(const std::string& host);
  // A port does not leave its fleet: what is said of our peer as one of another fleet is not true.
  bool is_peers_fleet(const std::string& host) const;

  // ---- frames ----
  void from_guest(std::span<const BytesView> frames);
  void arrived(Label label, BytesView frame);
  void ended(Label label, const End& end);
  void noticed(const std::string& host, const Notice& notice);

  // ---- moving, source side ----
  void offer(const std::string& host, Epoch epoch);
  // QEMU stands, and `undelivered` are the frames it never took, oldest first.
  void pause(std::span<const BytesView> undelivered);
  void resume();
  void release();
  // ---- moving, target side ----
  void expect_from(const std::string& host, const WireConfig* wire);  // the state is held
  void run();

  // False: the lease is over and the port is to be deleted.
  bool tick();
  // The next instant at which tick() has something to do.
  Instant deadline() const;
  DueQueue<Port>::Place& place() { return place_; }

  WireStats wire_stats() const;
  PortStats port_stats() const;

  // Channel::Receiver. A channel of the wire of before may live a little longer, and its other end,
  // an old host that forwards, for as long as its lease.
  void arrived(const Channel& from, BytesView frame) override {
    if (!is_of_wire(from)) return void(++counters_.unwired);
    arrived(from.arriving(), frame);
  }
  void ended(const Channel& from, const End& end, bool complete) override {
    if (!is_of_wire(from)) return;
    if (!complete) ++counters_.incomplete_ends;
    ended(from.arriving(), end);
  }
  void noticed(const Channel& from, const Notice& notice) override {
    if (is_of_wire(from)) noticed(from.host(), notice);
  }
  void channel_ready(Channel& channel) override;
  Nanoseconds marker_wait() const override;
  // The channel ends.
  void has_lost(const Channel& channel) { channel.add_drops(of_old_channels_); }

 private:
  // Another host this port moves to or comes from.
  struct Neighbour {
    std::string host;
    Epoch epoch = 0;
  };

  // wiring
  bool is_here(const Location& peer) const { return peer.host == fabric_->self(); }
  bool is_of_wire(const Channel& channel) const { return wire_ && channel.id().wire == wire_->id; }
  PortEpoch peer_at(Epoch epoch) const { return {wire_->remote, epoch}; }
  Channel* channel_to(const Location& peer);
  Channel* outlet();
  Channel* existing_channel_to(const Location& peer) const;
  bool reaches(const Location& peer);
  // The peer's port, if it is here and of the same wire.
  Port* beside(const Location& peer) const;
  bool is_peer_missing() const;
  bool may_follow() const;
  void send(BytesView frame);
  void send_end(const Location& peer, End::Kind kind, Epoch next);
  void tell(const Location& peer, const Notice& notice);
  void tell_where_we_are();
  void note_location(const Location& location);
  void set_newest(const Location& location);

  // notices
  void learn_move(const Move& move);
  void learn_superseded(const Move& move);
  void learn_announce(const Announce& announce);
  void learn_handover(const Handover& handover);
  void follow_peer();
  void look_for_peer();

  // waiting
  void wake(Instant due) { fabric_->wake(*this, due); }
  void watch_intake();
  void give_up_waiting();

  // moving
  Channel* detour(Label label);
  void forward(Label label, BytesView frame);
  void forward_all();
  void tell_next(const Notice& notice);
  void hand_over(bool paused);
  void close_detours();
  void check_prepared();
  bool may_be_prepared() const;
  void open_intake();
  void deliver(BytesView frame);
  void check_overflow();
  bool waiting_for_handover() const;

  const PortConfig config_;
  PortState state_;
  Fabric* fabric_;
  Intake intake_;
  PortCounters counters_;
  Drops of_old_channels_;

  std::optional<WireConfig> wire_;
  // channel_to(peer_), looked up again when the peer moved or a channel was deleted.
  Channel* outlet_ = nullptr;
  Epoch outlet_epoch_ = 0;
  std::uint64_t outlet_deletions_ = 0;
  Location peer_;                           // where frames to the peer go
  Location newest_;                         // where the peer is, as far as we heard
  std::map<Epoch, std::string> locations_;  // where it is, was, or may be
  std::optional<Instant> missing_next_;     // when to say next that newest_ is here and is not
  Epoch first_address_ = 0;                 // of the segments that we produce
  std::uint64_t end_serial_ = 0;

  std::optional<Neighbour> next_;      // offered to, or moved to
  std::optional<Neighbour> previous_;  // comes from
  std::set<ChannelId> detours_;        // to next_
  bool prepared_ = false;
  bool handed_over_ = false;  // the old host said where delivery begins
  Nanoseconds told_rtt_{};    // from the old host to where the peer was
  Instant run_at_{};
  Instant handover_due_{};                // delivery begins without the old host's word
  std::optional<Instant> blocked_since_;  // of the intake, when wait_ends_ was set
  Instant wait_ends_{};
  Instant lease_ends_{};
  bool overflow_told_ = false;
  Epoch superseded_by_ = 0;
  DueQueue<Port>::Place place_;
};

}  // namespace godwit::wire
