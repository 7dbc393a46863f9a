// How a port leaves a host and arrives at another (design 5, "Moving a port").
#include <algorithm>

#include "base/check.hh"
#include "wire/port.hh"

namespace godwit::wire {

// ---- source ----

void Port::offer(const std::string& host, Epoch epoch) {
  CHECK(epoch > config_.epoch && host != fabric_->self());
  if (state_ != PortState::live) return;
  if (next_ && next_->epoch != epoch) close_detours();
  next_ = Neighbour{host, epoch};
  if (!wire_) return;
  tell(newest_, Announce{{config_.id, epoch}, host});
  hand_over(false);
}

Channel* Port::detour(Label label) {
  if (!wire_ || !next_) return nullptr;
  const ChannelId channel_id =
      ChannelId::detour(wire_->id, id(), {config_.id, next_->epoch}, label);
  Channel* channel = fabric_->open_channel(channel_id, id(), next_->host);
  if (channel) detours_.insert(channel_id);
  return channel;
}

void Port::forward(Label label, BytesView frame) {
  Channel* channel = detour(label);
  if (!channel) return void(++counters_.no_channel);
  ++counters_.forwarded;
  channel->send(frame);
}

void Port::tell_next(const Notice& notice) {
  if (Channel* channel = detour(intake_.current())) channel->notify(notice);
}

// What the new host must know; first when the move is offered, so that it can open its channels,
// and finally at the pause.
void Port::hand_over(bool paused) {
  Handover handover{paused, intake_.current(), peer_, {}, {}, intake_.known_begins()};
  if (const auto rtts = fabric_->rtts(id()); !rtts.empty()) handover.longest_rtt = rtts.front();
  if (newest_.epoch > peer_.epoch) handover.peer = newest_;
  for (const auto& [epoch, host] : locations_) {
    if (epoch > handover.peer.epoch) handover.announced.push_back({epoch, host});
  }
  tell_next(handover);
}

void Port::pause(std::span<const BytesView> undelivered) {
  if (state_ != PortState::live || !next_) return;
  state_ = PortState::paused;
  intake_.open(false, fabric_->now(), {});
  if (!wire_) return;
  for (const BytesView& frame : undelivered) {
    intake_.frame(intake_.current(), frame, fabric_->now());
  }
  forward_all();
  hand_over(true);
  send_end(peer_, End::Kind::eof, next_->epoch);
}

// What waits here at the pause, and the ends that are known.
void Port::forward_all() {
  for (const auto& [label, kept] : intake_.segments()) {
    for (const Bytes& frame : kept.frames.frames()) forward(label, frame);
    if (!kept.end) continue;
    if (Channel* channel = detour(label)) channel->notify(*kept.end);
  }
}

// The move is taken back: our copy of what was forwarded is delivered here. The epoch that was
// offered is burned, the next move takes a higher one.
void Port::resume() {
  if (next_ && state_ != PortState::forwarding && wire_) {
    tell(newest_, Announce{{config_.id, next_->epoch}, {}});
  }
  if (state_ == PortState::live) {
    close_detours();
    next_.reset();
  }
  if (state_ != PortState::paused) return;
  close_detours();
  next_.reset();
  state_ = PortState::live;
  intake_.open(true, fabric_->now(), [this](BytesView frame) { deliver(frame); });
  watch_intake();
  if (!wire_) return;
  if (newest_.epoch != peer_.epoch) tell_where_we_are();
  follow_peer();
}

void Port::release() {
  if (state_ != PortState::paused) return;
  state_ = PortState::forwarding;
  intake_.clear();
  lease_ends_ = fabric_->now() + fabric_->limits().lease;
  wake(lease_ends_);
}

void Port::close_detours() {
  for (const ChannelId& id : detours_) fabric_->retire_channel(id, fabric_->now());
  detours_.clear();
}

// ---- target ----

void Port::expect_from(const std::string& host, const WireConfig* wire) {
  CHECK(state_ == PortState::held);
  previous_ = Neighbour{host, 0};
  if (wire) connect(*wire);
  check_prepared();
}

// Told once per preparation: the peer and the old host were both reached, and have answered.
void Port::check_prepared() {
  if (wire_ && !prepared_ && state_ == PortState::held && !is_here(newest_)) channel_to(newest_);
  if (!may_be_prepared()) return;
  prepared_ = true;
  fabric_->sink().event({EventKind::prepared, config_.id, config_.epoch, {}});
}

bool Port::may_be_prepared() const {
  if (prepared_ || state_ != PortState::held) return false;
  if (!wire_) return true;
  if (!fabric_->detour_confirmed(id())) return false;
  if (is_here(newest_)) return beside(newest_) != nullptr;
  const Channel* channel = existing_channel_to(newest_);
  return channel && channel->confirmed();
}

void Port::learn_handover(const Handover& handover) {
  told_rtt_ = handover.longest_rtt;
  for (const Location& location : handover.announced) {
    if (location.epoch > newest_.epoch) learn_announce({peer_at(location.epoch), location.host});
  }
  for (const Label& label : handover.begins) intake_.begins(label.producer, label.address);
  if (handover.peer.epoch > newest_.epoch && !handover.peer.host.empty()) {
    set_newest(handover.peer);
    if (!is_here(newest_)) channel_to(newest_);
    follow_peer();
  }
  if (!handover.paused || handed_over_) return;
  handed_over_ = true;
  if (!intake_.started()) intake_.start(handover.current);
  if (state_ == PortState::live) open_intake();
}

void Port::run() {
  if (state_ != PortState::held) return;
  state_ = PortState::live;
  run_at_ = fabric_->now();
  if (!wire_) return open_intake();
  // Where the peer is, if the way there is open; else by its old host, who forwards.
  if (newest_.epoch != peer_.epoch && reaches(newest_)) peer_ = newest_;
  first_address_ = peer_.epoch;
  tell(peer_, Move{id(), fabric_->self(), first_address_});
  if (newest_.epoch != peer_.epoch) tell_where_we_are();
  open_intake();
}

bool Port::waiting_for_handover() const { return wire_ && previous_ && !intake_.started(); }

// Delivery begins where the old host stopped. If its word does not come in time it is with what
// has come, in the order of labels.
void Port::open_intake() {
  const auto deliver_frame = [this](BytesView frame) { deliver(frame); };
  if (waiting_for_handover() && !handed_over_) {
    handover_due_ = run_at_ + marker_wait();
    if (fabric_->now() < handover_due_) return wake(handover_due_);
    const auto& segments = intake_.segments();
    intake_.start(segments.empty() ? Label{peer_.epoch, config_.epoch} : segments.begin()->first);
  }
  intake_.open(true, fabric_->now(), deliver_frame);
  watch_intake();
}

}  // namespace godwit::wire
