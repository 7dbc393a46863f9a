#include "wire/port.hh"

#include <algorithm>

#include "base/check.hh"
#include "base/host_name.hh"

namespace godwit::wire {

Port::Port(const PortConfig& config, PortState state, Fabric& fabric)
    : config_(config), state_(state), fabric_(&fabric), intake_(fabric.limits()) {
  if (state == PortState::live) intake_.open(true, fabric.now(), {});
}

void Port::enter(Fabric& fabric) {
  fabric_ = &fabric;
  outlet_ = nullptr;
  wake(fabric_->now());
}

// ---- wiring ----

void Port::connect(const WireConfig& wire) {
  if (wire_ && wire_->id == wire.id) {
    if (wire.remote_epoch > newest_.epoch) {
      learn_move({{wire.remote, wire.remote_epoch}, wire.remote_host, config_.epoch});
    }
    return;
  }
  disconnect();
  wire_ = wire;
  peer_ = newest_ = {wire.remote_epoch, wire.remote_host};
  note_location(newest_);
  first_address_ = peer_.epoch;
  if (!is_here(peer_)) channel_to(peer_);
  if (state_ == PortState::live) {
    // Also when the wire of before was still waited for (open_intake()).
    intake_.start({peer_.epoch, config_.epoch});
    intake_.open(true, fabric_->now(), [this](BytesView frame) { deliver(frame); });
    tell_where_we_are();
  }
}

void Port::disconnect() {
  if (!wire_) return;
  fabric_->retire_channels(id());
  detours_.clear();
  locations_.clear();
  missing_next_.reset();
  outlet_ = nullptr;
  intake_.clear();
  wire_.reset();
}

bool Port::admits(const ChannelId& id, const std::string& host) const {
  if (!wire_ || wire_->id != id.wire) return false;
  const PortEpoch other = id.other(this->id());
  if (id.is_detour()) {
    const auto& neighbour = other.epoch > config_.epoch ? next_ : previous_;
    return neighbour && neighbour->host == host &&
           (neighbour->epoch == other.epoch || other.epoch < config_.epoch);
  }
  if (other.port != wire_->remote) return false;
  const auto known = locations_.find(other.epoch);
  return known != locations_.end() && known->second == host;
}

// The last few places where the peer was, is or may be; the oldest are forgotten.
void Port::note_location(const Location& location) {
  locations_[location.epoch] = location.host;
  while (locations_.size() > kMaxLocations) {
    const auto oldest = locations_.begin();
    if (oldest->first == peer_.epoch) break;
    locations_.erase(oldest);
  }
}

void Port::set_newest(const Location& location) {
  newest_ = location;
  note_location(location);
  wake(fabric_->now());  // look_for_peer()
  if (state_ == PortState::forwarding) return;
  fabric_->sink().event({EventKind::peer_moved, config_.id, location.epoch, location.host});
}

Channel* Port::existing_channel_to(const Location& peer) const {
  return fabric_->find_channel(ChannelId::direct(wire_->id, id(), peer_at(peer.epoch)));
}

Channel* Port::channel_to(const Location& peer) {
  return fabric_->open_channel(ChannelId::direct(wire_->id, id(), peer_at(peer.epoch)), id(),
                               peer.host);
}

Port* Port::beside(const Location& peer) const {
  if (!is_here(peer)) return nullptr;
  Port* port = fabric_->port(peer_at(peer.epoch));
  return port && port->wire_ && port->wire_->id == wire_->id ? port : nullptr;
}

bool Port::reaches(const Location& peer) {
  if (is_here(peer)) return beside(peer) != nullptr;
  const Channel* channel = channel_to(peer);
  return channel && channel->can_send();
}

bool Port::is_peers_fleet(const std::string& host) const {
  return fleet_of(host) == fleet_of(newest_.host);
}

void Port::session_up(const std::string& host) {
  if (wire_ && state_ == PortState::live && newest_.host == host) tell_where_we_are();
}

// ---- frames ----

void Port::from_guest(std::span<const BytesView> frames) {
  if (!wire_ || state_ != PortState::live) {
    (wire_ ? counters_.not_live : counters_.unwired) += frames.size();
    return;
  }
  for (const BytesView& frame : frames) send(frame);
}

void Port::send(BytesView frame) {
  if (frame.size() < kMinFrameBytes) return void(++counters_.bad_size);
  ++counters_.tx_frames;
  counters_.tx_bytes += frame.size() - kVnetBytes;
  if (is_here(peer_)) {
    // Which may be about to be connected.
    Port* peer = fabric_->port(peer_at(peer_.epoch));
    if (!peer || (peer->wire_ && peer->wire_->id != wire_->id)) return void(++counters_.no_peer);
    return peer->arrived({config_.epoch, peer_.epoch}, frame);
  }
  Channel* channel = outlet();
  if (!channel) return void(++counters_.no_channel);
  channel->send(frame);
}

Channel* Port::outlet() {
  const std::uint64_t deletions = fabric_->channel_deletions();
  if (!outlet_ || outlet_epoch_ != peer_.epoch || outlet_deletions_ != deletions) {
    outlet_ = channel_to(peer_);
    outlet_epoch_ = peer_.epoch;
    outlet_deletions_ = deletions;
  }
  return outlet_;
}

void Port::send_end(const Location& peer, End::Kind kind, Epoch next) {
  // Readings of this host's clock grow, also over a restart of the agent.
  const auto now = static_cast<std::uint64_t>(fabric_->now().time_since_epoch().count());
  end_serial_ = std::max(end_serial_ + 1, now);
  const End end{kind, next, end_serial_, 0, 0};
  if (!is_here(peer)) return tell(peer, end);
  if (Port* port = beside(peer)) port->ended({config_.epoch, peer.epoch}, end);
}

void Port::arrived(Label label, BytesView frame) {
  switch (state_) {
    case PortState::live:
      if (intake_.frame(label, frame, fabric_->now())) deliver(frame);
      watch_intake();
      break;
    case PortState::paused:
      forward(label, frame);
      intake_.frame(label, frame, fabric_->now());  // our copy, should the move be taken back
      break;
    case PortState::held:
      intake_.frame(label, frame, fabric_->now());
      break;
    case PortState::forwarding:
      forward(label, frame);
      break;
  }
  check_overflow();
}

void Port::deliver(BytesView frame) {
  ++counters_.rx_frames;
  counters_.rx_bytes += frame.size() - std::min(frame.size(), kVnetBytes);
  fabric_->sink().to_port(config_.id, {&frame, 1});
}

void Port::check_overflow() {
  if (overflow_told_ || intake_.counters().dropped == 0) return;
  overflow_told_ = true;
  fabric_->sink().event({EventKind::overflow, config_.id, config_.epoch, {}});
}

void Port::ended(Label label, const End& end) {
  if (state_ != PortState::forwarding) intake_.ended(label, end);
  if (state_ == PortState::paused || state_ == PortState::forwarding) {
    if (Channel* channel = detour(label)) channel->notify(end);
  }
  if (state_ == PortState::live) {
    intake_.advance(fabric_->now(), [this](BytesView frame) { deliver(frame); });
    watch_intake();
  }
}

// ---- notices ----

void Port::tell(const Location& peer, const Notice& notice) {
  if (!is_here(peer)) {
    if (Channel* channel = channel_to(peer)) channel->notify(notice);
    return;
  }
  if (Port* port = beside(peer)) port->noticed(fabric_->self(), notice);
}

void Port::tell_where_we_are() { tell(newest_, Move{id(), fabric_->self(), first_address_}); }

void Port::noticed(const std::string& host, const Notice& notice) {
  if (!wire_) return;
  if (const auto* move = std::get_if<Move>(&notice)) {
    if (move->port.port == wire_->remote && is_peers_fleet(move->host)) learn_move(*move);
    if (move->port.port == config_.id) learn_superseded(*move);
  } else if (const auto* announce = std::get_if<Announce>(&notice)) {
    const bool taken_back = announce->host.empty();
    if (announce->port.port == wire_->remote && (taken_back || is_peers_fleet(announce->host))) {
      learn_announce(*announce);
    }
  } else if (const auto* handover = std::get_if<Handover>(&notice)) {
    if (previous_ && previous_->host == host) learn_handover(*handover);
  }
}

// Our own port is live elsewhere, at a higher epoch: the higher wins, and our journal is old.
void Port::learn_superseded(const Move& move) {
  const Epoch known = std::max(config_.epoch, superseded_by_);
  if (move.port.epoch <= known || state_ != PortState::live) return;
  superseded_by_ = move.port.epoch;
  fabric_->sink().event({EventKind::superseded, config_.id, move.port.epoch, move.host});
}

void Port::learn_announce(const Announce& announce) {
  if (announce.port.epoch <= newest_.epoch) return;
  const Location location{announce.port.epoch, announce.host};
  if (location.host.empty()) {
    const auto known = locations_.find(location.epoch);
    if (known != locations_.end() && known->second != fabric_->self()) {
      fabric_->retire_channel(ChannelId::direct(wire_->id, id(), peer_at(location.epoch)),
                              fabric_->now());
    }
    locations_.erase(location.epoch);
  } else {
    note_location(location);
    if (!is_here(location) && state_ != PortState::forwarding) channel_to(location);
  }
  if (next_) tell_next(announce);
}

void Port::learn_move(const Move& move) {
  const Location from{move.port.epoch, move.host};
  if (from.epoch < newest_.epoch && state_ == PortState::live) {
    // It should not be live there any more; its own engine must know.
    note_location(from);
    tell(from, Move{peer_at(newest_.epoch), newest_.host, 0});
  }
  if (from.epoch < newest_.epoch) return;
  if (move.first != 0) intake_.begins(from.epoch, move.first);
  // Also when we knew: where we went it may have been forgotten, and the peer may not know of
  // there.
  if (next_) tell_next(move);
  const bool is_news = from.epoch > newest_.epoch;
  if (is_news) set_newest(from);
  if (state_ == PortState::forwarding) {
    tell(from, Move{{config_.id, next_->epoch}, next_->host, 0});
  } else if (is_news) {
    if (!is_here(newest_)) channel_to(newest_);
    // At once: it may have forgotten us, and would not give us a key.
    if (state_ == PortState::live) tell_where_we_are();
    follow_peer();
  }
  if (state_ == PortState::live) {
    intake_.advance(fabric_->now(), [this](BytesView frame) { deliver(frame); });
    watch_intake();
  }
}

bool Port::may_follow() const {
  if (!wire_ || state_ != PortState::live || newest_.epoch == peer_.epoch) return false;
  if (is_here(newest_)) return beside(newest_) != nullptr;
  const Channel* channel = existing_channel_to(newest_);
  return channel && channel->can_send();
}

// Sends to where the peer is now, as soon as that way is open; until then its old host forwards.
void Port::follow_peer() {
  if (!wire_ || state_ != PortState::live || newest_.epoch == peer_.epoch) return;
  if (!reaches(newest_)) return;
  const Location old = peer_;
  send_end(old, End::Kind::flush, newest_.epoch);
  peer_ = newest_;
  if (!is_here(old)) {
    fabric_->retire_channel(ChannelId::direct(wire_->id, id(), peer_at(old.epoch)),
                            fabric_->now() + fabric_->limits().lease);
  }
}

// A host that does not know the peer leaves our Wants unanswered, and the channel says so. If the
// peer should be on this host there is no channel, and nobody but we can notice: after restarts
// both ends may believe that they are together, each where it is itself.
void Port::look_for_peer() {
  if (!is_peer_missing()) return missing_next_.reset();
  const Instant next = fabric_->now() + fabric_->limits().want_retry_max;
  if (!missing_next_) missing_next_ = next;
  if (fabric_->now() >= *missing_next_) {
    missing_next_ = next;
    fabric_->sink().event({EventKind::peer_unknown, config_.id, config_.epoch, fabric_->self()});
  }
}

bool Port::is_peer_missing() const {
  return wire_ && is_here(newest_) && beside(newest_) == nullptr;
}

void Port::channel_ready(Channel& channel) {
  if (!is_of_wire(channel)) return;
  if (!channel.id().is_detour()) follow_peer();
  check_prepared();
}

// The longest detour is two hops: from the peer to our old host, which told how far that is, and
// from there to us. The two longest round trips known bound it.
Nanoseconds Port::marker_wait() const {
  std::vector<Nanoseconds> rtts = fabric_->rtts(id());
  rtts.push_back(told_rtt_);
  std::ranges::sort(rtts, std::greater{});
  const Nanoseconds detour = rtts[0] + (rtts.size() > 1 ? rtts[1] : Nanoseconds{});
  const auto by_rtt =
      std::chrono::duration<double, std::nano>(detour) * fabric_->limits().marker_wait_rtts;
  return std::max(fabric_->limits().marker_wait, duration_cast<Nanoseconds>(by_rtt));
}

// The intake is to be advanced before. How long it may be blocked is what is known when that
// begins.
void Port::watch_intake() {
  const auto since = intake_.blocked_since();
  if (since && since != blocked_since_) wait_ends_ = *since + marker_wait();
  blocked_since_ = since;
  if (since) wake(wait_ends_);
}

void Port::give_up_waiting() {
  const Instant now = fabric_->now();
  const auto since = intake_.blocked_since();
  if (!since || now < wait_ends_) return;
  wait_ends_ = *since + marker_wait();  // a way may since have turned out to be longer
  if (now < wait_ends_) return;
  intake_.force(now, [this](BytesView frame) { deliver(frame); });
  watch_intake();
}

bool Port::tick() {
  if (state_ == PortState::forwarding) {
    if (fabric_->now() >= lease_ends_) return false;
  } else {
    look_for_peer();
    check_prepared();
    if (state_ == PortState::live) {
      follow_peer();
      if (waiting_for_handover()) open_intake();
      give_up_waiting();
    }
  }
  wake(deadline());
  return true;
}

Instant Port::deadline() const {
  if (state_ == PortState::forwarding) return lease_ends_;
  const Instant now = fabric_->now();
  if (may_follow() || may_be_prepared()) return now;
  Instant due = is_peer_missing() ? missing_next_.value_or(now) : Instant::max();
  if (state_ != PortState::live) return due;
  if (waiting_for_handover() && !handed_over_) due = std::min(due, handover_due_);
  if (intake_.blocked_since()) due = std::min(due, wait_ends_);
  return due;
}

}  // namespace godwit::wire
