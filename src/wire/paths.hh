#pragma once
// The ways from this host to another one, of which one is in use: what carries frames when NATs,
// firewalls, cut links and changed addresses are in between. Owned by the Engine, one per peer.
//
//   session ── Endpoints: where I receive, my probe index ──▶ peer
//   each path ── Probe (sealed, padded to a size) ──▶ peer ── Answer: seen from ──▶ us
//
// - An answer proves the path, measures it, and tells our address as the peer sees it (behind a NAT
//   another one than ours). That is told to all peers, and since both sides probe all they know of
//   each other at the same time, NATs in between open (simultaneous open).
// - A probe from an address that we did not know is answered, and probed in turn. Frames follow
//   only when that was answered: whoever merely resends a datagram gets nothing (RFC 9000, 8.2).
// - A relay is a third host that both reach. It forwards by the tag in receiver indices (engine.hh)
//   without opening anything, so a path through it is probed like any other; its address is that of
//   the relay.
// - Used paths are probed all the time, small and at full size: no answer to the one is a dead
//   path, no answer to the other a black hole for large packets (mtu_search.hh).
//
// Probes are sealed as messages of a lane of their own (wire.md). A peer of the previous version
// sends no Endpoints: frames go to the address of its session, in datagrams of the smallest size.
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "wire/control.hh"
#include "wire/due_queue.hh"
#include "wire/fabric.hh"
#include "wire/mtu_search.hh"
#include "wire/opener.hh"
#include "wire/sealer.hh"

namespace godwit::wire {

class Paths final {
 public:
  Paths(Peer& peer, Fabric& fabric);
  ~Paths();
  Paths(const Paths&) = delete;
  Paths& operator=(const Paths&) = delete;

  // The peer's secret is new. `addresses`: where its session runs or its host was said to be.
  void session_up(std::span<const PeerAddress> addresses);
  void endpoints(const Endpoints& theirs);
  void taken(const EndpointsTaken& taken);
  // Our own addresses are others than before: tell the peer.
  void publish();
  // Something may be wrong (our address changed): ask all paths now.
  void probe_all();

  // A datagram of our probe lane.
  void datagram(const PeerAddress& from, std::uint32_t index, MutableBytes datagram);
  // Frames go out by the active path at this moment.
  void sent();
  void tick();
  // The next instant at which tick() has something to do.
  Instant deadline() const { return due_; }
  DueQueue<Paths>::Place& place() { return place_; }
  Peer& peer() { return peer_; }

  Route route() const;
  // Where datagrams to the peer go; null when no address is known at all.
  const PeerAddress* target() const { return active_ ? &active_->address : nullptr; }
  // An answer came by the active path, and it is not known to be dead.
  bool is_proven() const { return state_ == State::proven; }
  // Datagrams of others may be sent there.
  bool is_proven_directly() const { return is_proven() && active_->via.empty(); }
  bool relays() const { return relays_; }
  Nanoseconds rtt() const { return active_ ? active_->rtt : Nanoseconds{}; }
  // That `from` is the peer's was proven within Limits::path_memory.
  bool has_proven(const PeerAddress& from) const;
  PeerStats stats() const;

 private:
  std::string_view state_text() const;
  std::uint16_t mtu() const;
  static const std::string kDirect;

  // unproven: nothing has answered yet. lost: what worked before does not.
  enum class State : std::uint8_t { unproven, proven, lost };
  struct Sent {
    std::uint64_t token = 0;
    std::uint16_t size = 0;
    Instant at{};
  };
  struct Path {
    PeerAddress address;
    std::string via;
    bool told = false;  // by the session or the peer: kept without an answer
    Instant born{};
    std::optional<Instant> answered{};
    std::optional<Instant> unanswered_since{};  // the oldest probe since the last answer
    std::optional<Instant> full_since{};        // the same of probes of the confirmed size
    Instant next{}, probed{};                   // the next and the last small probe
    Nanoseconds interval{};                     // of the probes while nothing answers
    Nanoseconds rtt{};
    MtuSearch search;
    std::array<Sent, 16> sent{};  // the last ones
    std::size_t sent_next = 0;
  };

  Path* find(const PeerAddress& address, const std::string& via);
  Path* add(const PeerAddress& address, const std::string& via, bool told);
  bool make_room();
  void refresh_relays();
  void forget_old();
  bool needs_relay() const;
  bool is_suspect(const Path& path) const;
  bool is_dead(const Path& path) const;
  Nanoseconds suspect_after(const Path& path) const;
  Nanoseconds dead_after(const Path& path) const;
  Nanoseconds interval_of(const Path& path) const;
  void probe(Path& path, std::uint16_t size);
  void probe_due(Path& path);
  void check_active();
  Path* best_since(Instant when);
  void tell();
  void tick_active();
  void due(Instant when);
  void consider(Path& path);
  void use(Path& path);

  void seal(const PeerAddress& to, std::uint8_t kind, BytesView body);
  void received(const PeerAddress& from, std::uint8_t kind, BytesView body);
  void probed(const PeerAddress& from, std::uint64_t token, bool by_relay);
  void answered(std::uint64_t token, const PeerAddress& seen);
  LaneKey lane(bool ours, std::uint32_t index) const;

  Peer& peer_;
  Fabric& fabric_;
  std::vector<std::unique_ptr<Path>> paths_;
  Path* active_ = nullptr;
  State state_ = State::unproven;
  std::optional<Instant> last_sent_;
  Instant due_ = Instant::max();

  struct Inbound {
    std::uint32_t index = 0;
    std::unique_ptr<Opener> opener;
  };
  std::optional<Sealer> tx_;
  std::uint32_t tx_session_ = 0;  // session tag of its key
  std::vector<Inbound> rx_;       // of this session and the one before
  bool relays_ = false;

  std::uint64_t serial_ = 0, taken_ = 0;  // of our Endpoints
  std::uint64_t their_serial_ = 0;
  Instant publish_next_{};
  Nanoseconds publish_interval_{};
  int published_ = 0;  // in vain
  DueQueue<Paths>::Place place_;
};

}  // namespace godwit::wire
