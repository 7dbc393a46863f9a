#include "wire/paths.hh"

#include <algorithm>

#include "base/host_name.hh"
#include "wire/datagram.hh"
#include "wire/key.hh"

namespace godwit::wire {
namespace {

// Of the lane of probes: no wire has this id, no channel this lane.
constexpr std::uint16_t kProbeLane = 0xffff;
constexpr std::uint64_t kMaxProbes = std::uint64_t{1} << 26;
// What a peer of the previous version never takes is not repeated for ever: 8 times in 7 s.
constexpr int kPublishTries = 8;

}  // namespace

const std::string Paths::kDirect;

Peer::Peer() = default;
Peer::~Peer() = default;

Paths::Paths(Peer& peer, Fabric& fabric) : peer_(peer), fabric_(fabric) {}

Paths::~Paths() {
  for (const Inbound& rx : rx_) fabric_.release_index(rx.index);
}

// ---- sessions ----

LaneKey Paths::lane(bool ours, std::uint32_t index) const {
  KeyPurpose purpose;
  purpose.lane = kProbeLane;
  purpose.generation = 1;
  purpose.direction =
      ours == peer_.is_initiator ? Direction::from_initiator : Direction::from_acceptor;
  // Few datagrams: what both can compute in constant time needs no agreement.
  purpose.algorithm = crypto::AeadAlgorithm::chacha20_poly1305;
  return {purpose.algorithm, derive_key(peer_.secret, purpose), index, purpose.epoch};
}

void Paths::session_up(std::span<const PeerAddress> addresses) {
  for (const PeerAddress& address : addresses) add(address, kDirect, true);
  if (state_ == State::unproven && !addresses.empty()) {
    active_ = find(addresses.front(), kDirect);
  }
  const std::uint32_t index = fabric_.take_index(*this);
  rx_.push_back({index, std::make_unique<Opener>(lane(false, index), fabric_.frame_pool())});
  if (rx_.size() > 2) {
    fabric_.release_index(rx_.front().index);
    rx_.erase(rx_.begin());
  }
  their_serial_ = 0;
  publish();
}

void Paths::publish() {
  ++serial_;
  published_ = 0;
  publish_interval_ = {};
  publish_next_ = fabric_.now();
  due(fabric_.now());
}

void Paths::due(Instant when) {
  due_ = std::min(due_, when);
  fabric_.wake(*this, due_);
}

void Paths::tell() {
  if (!peer_.up || taken_ >= serial_ || published_ >= kPublishTries) return;
  const Limits& limits = fabric_.limits();
  if (fabric_.now() >= publish_next_) {
    publish_interval_ =
        std::clamp(publish_interval_ * 2, limits.want_retry_min, limits.want_retry_max);
    publish_next_ = fabric_.now() + publish_interval_;
    ++published_;
    fabric_.sink().to_control(
        peer_.host,
        encode(Endpoints{peer_.session_tag, serial_, rx_.back().index,
                         limits.relays && !is_foreign(peer_.host), fabric_.own_addresses()}));
  }
  due_ = std::min(due_, publish_next_);
}

void Paths::taken(const EndpointsTaken& taken) {
  if (taken.session == peer_.session_tag) taken_ = std::max(taken_, taken.serial);
}

void Paths::endpoints(const Endpoints& theirs) {
  if (!peer_.up || theirs.session != peer_.session_tag) return;
  fabric_.sink().to_control(peer_.host, encode(EndpointsTaken{theirs.session, theirs.serial}));
  if (theirs.serial <= their_serial_) return;
  their_serial_ = theirs.serial;
  // One key per session, hence one counter: another index of the same session is not taken.
  if (!tx_ || tx_session_ != theirs.session) {
    tx_.emplace(lane(true, theirs.receiver_index), kMaxPathMtu, kMaxProbes);
    tx_session_ = theirs.session;
    fabric_.note_tag(theirs.receiver_index, peer_);
  }
  relays_ = theirs.relays && !is_foreign(peer_.host);
  for (const auto& path : paths_) path->told = false;
  for (const PeerAddress& address : theirs.addresses) {
    if (!fabric_.host_at(address, peer_.host).empty()) continue;  // another's
    if (Path* path = add(address, kDirect, true)) {
      path->next = std::min(path->next, fabric_.now());
      path->interval = {};
    }
  }
  // Perhaps because it is not where it was.
  if (state_ == State::proven) active_->next = fabric_.now();
  due(fabric_.now());
}

// ---- the list ----

Paths::Path* Paths::find(const PeerAddress& address, const std::string& via) {
  for (const auto& path : paths_) {
    if (path->address == address && path->via == via) return path.get();
  }
  return nullptr;
}

// Found or made; null when there are too many.
Paths::Path* Paths::add(const PeerAddress& address, const std::string& via, bool told) {
  if (Path* known = find(address, via)) {
    known->told |= told;
    return known;
  }
  if (paths_.size() >= fabric_.limits().paths_per_peer && !make_room()) return nullptr;
  const Limits& limits = fabric_.limits();
  const std::uint16_t floor = address.is_ipv4() ? limits.mtu_floor : limits.mtu_floor_ipv6;
  paths_.push_back(std::make_unique<Path>(
      Path{.address = address,
           .via = via,
           .told = told,
           .born = fabric_.now(),
           .next = fabric_.now(),
           .search = MtuSearch(floor, std::max(floor, limits.mtu_most), limits.mtu_raise)}));
  return paths_.back().get();
}

// The oldest of those that nobody would miss.
bool Paths::make_room() {
  const auto old = std::ranges::find_if(paths_, [this](const auto& path) {
    return path.get() != active_ && !path->told && (!path->answered || path->unanswered_since);
  });
  if (old == paths_.end()) return false;
  paths_.erase(old);
  return true;
}

void Paths::forget_old() {
  const Instant before = fabric_.now() - fabric_.limits().path_memory;
  std::erase_if(paths_, [&](const auto& path) {
    return path.get() != active_ && !path->told &&
           std::max(path->born, path->answered.value_or(path->born)) < before;
  });
}

bool Paths::needs_relay() const {
  return state_ != State::proven || !active_->via.empty() || is_suspect(*active_);
}

void Paths::refresh_relays() {
  if (!needs_relay()) return;
  for (const auto& [name, address] : fabric_.relays_to(peer_.host)) {
    if (find(address, name) != nullptr) continue;
    const auto moved = std::ranges::find_if(paths_, [&](auto& path) { return path->via == name; });
    if (moved != paths_.end()) {
      (*moved)->address = address;
    } else {
      add(address, name, false);
    }
  }
}

// ---- choosing ----

// Whether the active path still is one, and for packets of the size in use.
void Paths::check_active() {
  if (state_ != State::proven) return;
  Path& path = *active_;
  if (is_dead(path)) {
    if (Path* other = best_since(*path.unanswered_since)) return use(*other);
    state_ = State::lost;
    for (const auto& other : paths_) other->interval = {};
    return fabric_.sink().event({.kind = EventKind::path_lost, .host = peer_.host});
  }
  if (!path.full_since || fabric_.now() - *path.full_since < dead_after(path)) return;
  path.full_since.reset();
  if (is_suspect(path)) return;  // nothing passes: that is no matter of size
  path.search.black_hole(fabric_.now());
  fabric_.mtu_changed(peer_);
}

// Of those that have answered since: a direct one, the nearest.
Paths::Path* Paths::best_since(Instant when) {
  Path* best = nullptr;
  const auto rank = [](const Path& path) { return std::pair{!path.via.empty(), path.rtt}; };
  for (const auto& path : paths_) {
    if (path.get() == active_ || !path->answered || *path->answered < when) continue;
    if (best == nullptr || rank(*path) < rank(*best)) best = path.get();
  }
  return best;
}

// A path answered: is it the one to use?
void Paths::consider(Path& path) {
  if (active_ == nullptr || state_ != State::proven) return use(path);
  if (&path == active_) return;
  const bool is_direct = path.via.empty(), was_direct = active_->via.empty();
  if (is_direct != was_direct) {
    if (is_direct) use(path);
    return;
  }
  // Not for a little: packets would overtake each other at each change.
  if (path.rtt * 2 + milliseconds(5) < active_->rtt) use(path);
}

void Paths::use(Path& path) {
  active_ = &path;
  state_ = State::proven;
  fabric_.sink().event(
      {.kind = EventKind::path_changed, .host = peer_.host, .path = path.address, .via = path.via});
  fabric_.path_changed(peer_);
}

std::uint16_t Paths::mtu() const {
  return active_ != nullptr && state_ != State::unproven ? active_->search.confirmed()
                                                         : fabric_.limits().mtu_floor;
}

bool Paths::has_proven(const PeerAddress& from) const {
  return std::ranges::any_of(paths_, [&](const auto& path) {
    return path->address == from && path->via.empty() && path->answered &&
           fabric_.now() - *path->answered < fabric_.limits().path_memory;
  });
}

// ---- reports ----

Route Paths::route() const {
  return {.target = active_ ? std::optional(active_->address) : std::nullopt,
          .via = active_ ? active_->via : kDirect,
          .state = state_text(),
          .mtu = mtu()};
}

std::string_view Paths::state_text() const {
  switch (state_) {
    case State::unproven:
      return "unproven";
    case State::proven:
      return "proven";
    case State::lost:
      return "lost";
  }
  return "?";
}

PeerStats Paths::stats() const {
  PeerStats stats{.host = peer_.host, .state = state_text(), .relays = relays_, .paths = {}};
  for (const auto& path : paths_) {
    stats.paths.push_back({.address = path->address,
                           .via = path->via,
                           .is_active = path.get() == active_,
                           .answers = path->answered && !is_suspect(*path),
                           .rtt = path->rtt,
                           .mtu = path->search.confirmed()});
  }
  return stats;
}

}  // namespace godwit::wire
