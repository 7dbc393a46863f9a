#pragma once
// One channel between two hosts (types.hh, ChannelId): a sealer for what we send, an opener for
// each generation that we accept, and the notices that the other side has not acknowledged.
//
// Keys are pulled by the sender, which makes every step repeatable:
//
//   sender                                   receiver
//     │ ── Want{serial} (session) ──────────▶ │  a new generation, a new receiver index, an opener
//     │ ◀── Offer{serial, generation, index}  │
//     │ ── sealed datagrams ────────────────▶ │  the old generation is accepted for a grace period
//
// The receiver counts generations per session and the sender takes only growing ones, so that no
// repeated or late message can make two sealers of one key.
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "wire/control.hh"
#include "wire/due_queue.hh"
#include "wire/fabric.hh"
#include "wire/held_buffer.hh"
#include "wire/opener.hh"
#include "wire/sealer.hh"

namespace godwit::wire {

struct ChannelCounters {
  std::uint64_t unkeyed = 0;  // frames dropped: no key in time, or no address of the peer
  std::uint64_t expired = 0;  // frames dropped: key used up or too old, no session to renew it
};

class Channel final {
 public:
  // Where the channel's arrivals go: the port it belongs to.
  class Receiver {
   public:
    virtual ~Receiver() = default;
    virtual void arrived(const Channel& from, BytesView frame) = 0;
    // All of the segment has arrived, or (not `complete`) the wait for the rest of it is over.
    virtual void ended(const Channel& from, const End& end, bool complete) = 0;
    virtual void noticed(const Channel& from, const Notice& notice) = 0;
    virtual void channel_ready(Channel& channel) = 0;  // became able to send, or confirmed
    virtual Nanoseconds marker_wait() const = 0;
  };

  Channel(ChannelId id, PortEpoch local, Peer& peer, Fabric& fabric, Receiver& receiver);
  ~Channel();
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  const ChannelId& id() const { return id_; }
  const PortEpoch& local() const { return local_; }
  const PortEpoch& remote() const { return id_.other(local_); }
  const std::string& host() const { return peer_->host; }
  Peer& peer() { return *peer_; }
  // What frames that arrive here are labelled with.
  Label arriving() const;

  // Has a key that is neither too old nor used up, and an address of the peer is known.
  bool can_send() const { return has_key() && peer_->route.target.has_value(); }
  // Has sent, and heard back, under the present keys.
  bool confirmed() const { return tx_ && rtt_.has_value(); }
  // Of in-channel messages; zero before the first.
  Nanoseconds rtt() const { return rtt_.value_or(Nanoseconds{}); }
  std::uint32_t generation() const { return tx_ ? tx_->generation : 0; }
  bool stopped() const { return stopped_; }
  const ChannelCounters& counters() const { return counters_; }

  void send(BytesView frame);
  // Repeated until acknowledged. An End takes the counter reached now.
  void notify(Notice notice);
  void flush();  // into the peer's batch
  // True when notices are still to be acknowledged.
  bool has_notices() const { return !notices_.empty(); }
  // The engine's: it is to call flush().
  bool awaits_flush = false;

  // To another engine of this host: in between nothing may be called, nor the channel end.
  void leave();
  void enter(Peer& peer, Fabric& fabric);
  std::vector<std::uint32_t> indices() const;  // receiver indices that it has given out

  void session_up();
  void path_changed();
  void mtu_changed();
  void wanted(const Want& want);
  void offered(const Offer& offer);
  void control_notice(const Notify& notify);
  void acknowledged(std::uint64_t serial);
  void datagram(std::uint32_t index, MutableBytes datagram);

  void tick();
  // The next instant at which tick() has something to do.
  Instant deadline() const;
  DueQueue<Channel>::Place& place() { return place_; }
  // Its end, for the engine to see to.
  void retire(Instant when);
  bool is_over() const { return retires_ && fabric_->now() >= *retires_; }
  // What waits here goes nowhere any more.
  void give_up();

  // Under all its keys so far, added to `drops`.
  void add_drops(Drops& drops) const;

 private:
  struct Outbound {
    std::uint32_t generation = 0;
    Sealer sealer;
    Instant since;
  };
  struct Inbound {
    std::uint32_t generation = 0;
    std::uint32_t index = 0;
    std::uint64_t want_serial = 0;
    std::unique_ptr<Opener> opener;
    std::optional<Instant> superseded{};
    Offer offer{};
  };
  struct Unacknowledged {
    std::uint64_t serial = 0;
    Notice notice;
    Instant born{}, next{};
    Nanoseconds interval{};
    bool fixed = false;  // an End knows its counter
  };
  struct Waiting {
    End end;
    Instant deadline{};
  };
  struct FromOpener;

  void wake(Instant due) { fabric_->wake(*this, due); }
  // What is not urgent waits for the others': of many wires each would wake the thread, and have
  // datagrams sent, for itself.
  static Instant together(Instant due) {
    constexpr Nanoseconds grid = milliseconds(100);
    return Instant((due.time_since_epoch() + grid - Nanoseconds(1)) / grid * grid);
  }
  crypto::AeadKey key(bool ours, std::uint32_t generation, crypto::AeadAlgorithm algorithm) const;
  bool has_key() const;
  void want_key();
  void begin();
  void expire_unkeyed();
  void note_stopped(bool stopped);
  Instant over_at(const Inbound& rx) const;
  void retire_old_generations();
  void forget(const Inbound& rx);
  void ping();
  void transmit(Unacknowledged& notice);
  void receive_notice(std::uint64_t serial, const Notice& notice, bool by_control);
  void receive_end(const End& end);
  void received(std::uint8_t kind, BytesView body);
  bool all_arrived(const End& end) const;
  Instant settles_at(const End& end) const;
  void check_waiting();

  const ChannelId id_;
  const PortEpoch local_;
  Peer* peer_;
  Fabric* fabric_;
  Receiver& receiver_;

  std::optional<Outbound> tx_;
  std::vector<Inbound> rx_;  // oldest first
  HeldBuffer unkeyed_;
  Instant unkeyed_since_{};
  bool stopped_ = false;

  std::uint64_t want_serial_ = 0;  // 0: none outstanding
  Instant want_next_{};
  Nanoseconds want_interval_{};
  int wants_ = 0;  // in vain

  std::deque<Unacknowledged> notices_;
  std::vector<Waiting> waiting_;
  std::uint64_t last_end_ = 0;

  std::optional<Nanoseconds> rtt_;
  bool rtt_is_old_ = false;  // measured on another path
  Instant ping_next_{};
  Nanoseconds ping_interval_{};
  std::optional<Instant> retires_;
  DueQueue<Channel>::Place place_;
  ChannelCounters counters_;
  Drops of_old_keys_;
};

}  // namespace godwit::wire
