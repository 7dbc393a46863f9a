#include "wire/channel.hh"

#include <algorithm>

#include "base/check.hh"
#include "wire/key.hh"

namespace godwit::wire {

struct Channel::FromOpener final : OpenerSink {
  explicit FromOpener(Channel& to) : channel(to) {}
  void frame(BytesView frame) override { channel.receiver_.arrived(channel, frame); }
  void message(std::uint8_t kind, BytesView body, std::uint64_t) override {
    channel.received(kind, body);
  }
  Channel& channel;
};

Channel::Channel(ChannelId id, PortEpoch local, Peer& peer, Fabric& fabric, Receiver& receiver)
    : id_(id), local_(local), peer_(&peer), fabric_(&fabric), receiver_(receiver) {
  ++peer_->channels;
  CHECK(local == id.low || local == id.high);
  want_next_ = ping_next_ = fabric_->now();
}

Channel::~Channel() {
  if (peer_ == nullptr) return;  // left, and was not to go on
  --peer_->channels;
  for (const Inbound& rx : rx_) fabric_->release_index(rx.index);
}

void Channel::leave() {
  place_.leave();
  --peer_->channels;
  for (Inbound& rx : rx_) rx.opener->leave_pool();
  peer_ = nullptr;
}

void Channel::enter(Peer& peer, Fabric& fabric) {
  peer_ = &peer;
  fabric_ = &fabric;
  ++peer_->channels;
  for (Inbound& rx : rx_) rx.opener->enter_pool(fabric.frame_pool());
  mtu_changed();
  if (!unkeyed_.empty()) begin();  // this engine may know the address before the one of before
  wake(fabric_->now());
}

void Channel::retire(Instant when) {
  retires_ = when;
  wake(when);
}

std::vector<std::uint32_t> Channel::indices() const {
  std::vector<std::uint32_t> all;
  for (const Inbound& rx : rx_) all.push_back(rx.index);
  return all;
}

Label Channel::arriving() const {
  if (id_.is_detour()) return id_.label;
  return {remote().epoch, local_.epoch};
}

// ---- frames ----

bool Channel::has_key() const {
  return tx_ && !tx_->sealer.exhausted() &&
         fabric_->now() - tx_->since < fabric_->limits().key_life;
}

void Channel::send(BytesView frame) {
  if (can_send() && unkeyed_.empty()) {
    tx_->sealer.frame(frame, peer_->batch);
    peer_->sends_frames = true;
    fabric_->has_output(*this);
    return;
  }
  if (tx_ && !has_key()) {  // there was one, and it may not be used any more
    note_stopped(true);
    ++counters_.expired;
    return;
  }
  const std::size_t limit =
      id_.is_detour() ? fabric_->limits().held_bytes : fabric_->limits().unkeyed_bytes;
  if (unkeyed_.empty()) unkeyed_since_ = fabric_->now();
  if (!unkeyed_.push(frame, limit)) ++counters_.unkeyed;
  if (!id_.is_detour()) wake(unkeyed_since_ + fabric_->limits().unkeyed_age);
}

void Channel::flush() {
  if (!tx_) return;
  tx_->sealer.flush(peer_->batch);
  const bool is_worn = tx_->sealer.next_counter() >= fabric_->limits().rekey_datagrams;
  if (is_worn && want_serial_ == 0) want_key();
}

// There may be a key and an address now: what waited for them goes, and the ends behind it.
void Channel::begin() {
  if (can_send()) {
    while (!unkeyed_.empty()) tx_->sealer.frame(unkeyed_.pop(), peer_->batch);
    fabric_->has_output(*this);
  }
  for (Unacknowledged& notice : notices_) transmit(notice);
}

// Frames for a peer that does not answer are no use to it minutes later. A detour keeps them: they
// belong to a guest that is about to run.
void Channel::expire_unkeyed() {
  if (unkeyed_.empty() || id_.is_detour()) return;
  if (fabric_->now() < unkeyed_since_ + fabric_->limits().unkeyed_age) return;
  counters_.unkeyed += unkeyed_.size();
  unkeyed_.clear();
}

void Channel::path_changed() {
  mtu_changed();
  rtt_is_old_ = true;
  ping_interval_ = {};
  if (!unkeyed_.empty()) begin();
  ping();
}

void Channel::mtu_changed() {
  if (!tx_) return;
  tx_->sealer.set_path_mtu(peer_->route.mtu, peer_->batch);
  fabric_->has_output(*this);
}

void Channel::datagram(std::uint32_t index, MutableBytes datagram) {
  const auto rx = std::ranges::find(rx_, index, &Inbound::index);
  if (rx == rx_.end()) return;
  FromOpener sink(*this);
  if (!rx->opener->open(datagram, fabric_->now(), sink)) return;
  // The first datagram of a generation begins the grace period of those before it.
  for (auto older = rx_.begin(); older != rx; ++older) {
    if (older->superseded) continue;
    older->superseded = fabric_->now();
    wake(over_at(*older));
  }
  if (const auto due = rx->opener->next_tick()) wake(*due);
  if (!waiting_.empty()) check_waiting();
}

// ---- keys ----

crypto::AeadKey Channel::key(bool ours, std::uint32_t generation,
                             crypto::AeadAlgorithm algorithm) const {
  KeyPurpose purpose;
  purpose.wire = id_.wire;
  purpose.epoch = ours ? local_.epoch : remote().epoch;
  purpose.direction =
      ours == peer_->is_initiator ? Direction::from_initiator : Direction::from_acceptor;
  purpose.generation = generation;
  purpose.algorithm = algorithm;
  return derive_key(peer_->secret, purpose);
}

void Channel::session_up() {
  want_serial_ = 0;
  want_interval_ = {};
  want_next_ = fabric_->now();
  want_key();
  begin();
}

void Channel::want_key() {
  if (!peer_->up) return;
  const Limits& limits = fabric_->limits();
  if (want_serial_ == 0) {
    want_serial_ = fabric_->random() | 1;
    want_interval_ = limits.want_retry_min;
    wants_ = 0;
  } else {
    want_interval_ = std::min(want_interval_ * 2, limits.want_retry_max);
  }
  if (++wants_ > limits.wants_unanswered && !id_.is_detour()) {
    fabric_->sink().event({EventKind::peer_unknown, local_.port, local_.epoch, peer_->host});
  }
  want_next_ = fabric_->now() + want_interval_;
  wake(want_next_);
  fabric_->sink().to_control(
      peer_->host, encode(Want{id_, peer_->session_tag, want_serial_, fabric_->has_aes()}));
}

void Channel::wanted(const Want& want) {
  if (!peer_->up || want.session != peer_->session_tag) return;
  for (const Inbound& rx : rx_) {
    if (rx.want_serial == want.serial) {  // asked again: the same answer
      return fabric_->sink().to_control(peer_->host, encode(rx.offer));
    }
  }
  Inbound rx;
  rx.generation = peer_->next_generation++;
  rx.index = fabric_->take_index(*this);
  rx.want_serial = want.serial;
  const auto algorithm = crypto::choose_algorithm(fabric_->has_aes(), want.has_aes);
  rx.offer = {id_,           peer_->session_tag, want.serial,
              rx.generation, rx.index,           static_cast<std::uint8_t>(algorithm)};
  LaneKey lane{algorithm, key(false, rx.generation, algorithm), rx.index, remote().epoch};
  rx.opener = std::make_unique<Opener>(lane, fabric_->frame_pool());
  rx_.push_back(std::move(rx));
  if (rx_.size() > fabric_->limits().generations) {
    forget(rx_.front());
    rx_.erase(rx_.begin());
  }
  fabric_->sink().to_control(peer_->host, encode(rx_.back().offer));
}

void Channel::offered(const Offer& offer) {
  if (!peer_->up || offer.session != peer_->session_tag) return;
  std::uint32_t& highest = peer_->highest_offered[shard_of_generation(offer.generation)];
  if (offer.serial != want_serial_ || offer.generation <= highest) return;
  const auto algorithm = static_cast<crypto::AeadAlgorithm>(offer.algorithm);
  if (algorithm != crypto::AeadAlgorithm::aes_256_gcm &&
      algorithm != crypto::AeadAlgorithm::chacha20_poly1305) {
    return;
  }
  highest = offer.generation;
  want_serial_ = 0;
  if (tx_) {
    tx_->sealer.flush(peer_->batch);
    tx_->sealer.counters().add_to(of_old_keys_);
  }
  const LaneKey lane{algorithm, key(true, offer.generation, algorithm), offer.receiver_index,
                     local_.epoch};
  tx_.emplace(Outbound{offer.generation, Sealer(lane, peer_->route.mtu), fabric_->now()});
  want_next_ = together(fabric_->now() + fabric_->limits().rekey_after);
  note_stopped(false);
  begin();
  ping_interval_ = {};
  ping();  // which wakes for what comes first
  receiver_.channel_ready(*this);
}

void Channel::note_stopped(bool stopped) {
  if (stopped_ == stopped) return;
  stopped_ = stopped;
  fabric_->sink().event({stopped ? EventKind::wire_stopped : EventKind::wire_resumed, local_.port,
                         local_.epoch, peer_->host});
}

// When an old key is not accepted any more.
Instant Channel::over_at(const Inbound& rx) const {
  return rx.superseded ? together(*rx.superseded + fabric_->limits().key_grace) : Instant::max();
}

void Channel::retire_old_generations() {
  std::erase_if(rx_, [&](const Inbound& rx) {
    const bool over = fabric_->now() >= over_at(rx);
    if (over) forget(rx);
    return over;
  });
}

// Nothing is accepted under this key any more. What was dropped under it stays counted.
void Channel::forget(const Inbound& rx) {
  rx.opener->counters().add_to(of_old_keys_);
  of_old_keys_["incomplete"] += rx.opener->partial_frames();
  fabric_->release_index(rx.index);
}

// A detour's frames are copies as long as the move may be taken back.
void Channel::give_up() {
  if (!id_.is_detour()) counters_.unkeyed += unkeyed_.size();
  unkeyed_.clear();
  for (const Inbound& rx : rx_) forget(rx);
  rx_.clear();
}

void Channel::tick() {
  const Limits& limits = fabric_->limits();
  if (fabric_->now() >= want_next_) want_key();
  if (tx_ && !has_key()) note_stopped(true);
  expire_unkeyed();
  retire_old_generations();
  FromOpener sink(*this);
  for (Inbound& rx : rx_) rx.opener->tick(fabric_->now(), sink);
  std::erase_if(notices_, [&](const Unacknowledged& notice) {
    return fabric_->now() - notice.born >= limits.notice_patience;
  });
  for (Unacknowledged& notice : notices_) {
    if (fabric_->now() >= notice.next) transmit(notice);
  }
  if (!waiting_.empty()) check_waiting();
  if (fabric_->now() >= ping_next_) ping();
  wake(deadline());
}

Instant Channel::deadline() const {
  const Limits& limits = fabric_->limits();
  Instant due = retires_.value_or(Instant::max());
  const auto by = [&due](Instant when) { due = std::min(due, when); };
  if (peer_->up) by(want_next_);
  if (tx_) by(ping_next_);
  if (tx_ && !stopped_) by(tx_->since + limits.key_life);
  if (!unkeyed_.empty() && !id_.is_detour()) by(unkeyed_since_ + limits.unkeyed_age);
  for (const Inbound& rx : rx_) {
    by(over_at(rx));
    by(rx.opener->next_tick().value_or(Instant::max()));
  }
  for (const Unacknowledged& notice : notices_) {
    by(std::min(notice.next, notice.born + limits.notice_patience));
  }
  for (const Waiting& waiting : waiting_) by(std::min(waiting.deadline, settles_at(waiting.end)));
  return due;
}

}  // namespace godwit::wire
