// The in-channel messages of a Channel: pings, and the notices that move ports.
#include <algorithm>

#include "wire/channel.hh"
#include "wire/fleets.hh"

namespace godwit::wire {

void Channel::ping() {
  const Limits& limits = fabric_->limits();
  // Quickly until the first answer, since a move is prepared only then; later to keep NATs open.
  ping_interval_ = rtt_ && !rtt_is_old_
                       ? limits.keepalive
                       : std::clamp(ping_interval_ * 2, limits.first_ping, limits.keepalive);
  ping_next_ = fabric_->now() + ping_interval_;
  if (ping_interval_ == limits.keepalive) ping_next_ = together(ping_next_);
  if (tx_) wake(ping_next_);
  if (!can_send()) return;
  Bytes body;
  Writer(body).u64(static_cast<std::uint64_t>(fabric_->now().time_since_epoch().count()));
  tx_->sealer.message(in_channel::kPing, body, peer_->batch);
  fabric_->has_output(*this);
}

void Channel::notify(Notice notice) {
  const Instant now = fabric_->now();
  if (auto* end = std::get_if<End>(&notice)) {
    // An End replaces the one before it: a move that was taken back.
    std::erase_if(notices_, [](const Unacknowledged& old) {
      return std::holds_alternative<End>(old.notice);
    });
    end->generation = 0;
    end->counter = 0;
  }
  if (std::ranges::find(notices_, notice, &Unacknowledged::notice) != notices_.end()) return;
  notices_.push_back({fabric_->random(), std::move(notice), now, now, {}, false});
  transmit(notices_.back());
}

void Channel::transmit(Unacknowledged& notice) {
  const Limits& limits = fabric_->limits();
  notice.interval =
      std::clamp(notice.interval * 2, limits.notice_retry_min, limits.notice_retry_max);
  notice.next = fabric_->now() + notice.interval;
  wake(notice.next);
  if (auto* end = std::get_if<End>(&notice.notice); end && !notice.fixed) {
    if (!unkeyed_.empty()) return;  // they belong to the segment and have no counter yet
    if (tx_) {
      tx_->sealer.flush(peer_->batch);
      end->generation = tx_->generation;
      end->counter = tx_->sealer.next_counter();
    }
    notice.fixed = true;
  }
  const Notice told = as_told(peer_->host, notice.notice);
  if (can_send()) {
    const Bytes body = encode_in_channel(notice.serial, told);
    if (body.size() <= tx_->sealer.max_message_bytes()) {
      tx_->sealer.message(in_channel::kNotify, body, peer_->batch);
      fabric_->has_output(*this);
    }
  }
  if (peer_->up) {
    fabric_->sink().to_control(peer_->host, encode(Notify{id_, notice.serial, told}));
  }
}

void Channel::control_notice(const Notify& notify) {
  receive_notice(notify.serial, notify.notice, true);
}

void Channel::receive_notice(std::uint64_t serial, const Notice& notice, bool by_control) {
  if (!by_control && can_send()) {
    Bytes body;
    Writer(body).u64(serial);
    tx_->sealer.message(in_channel::kAck, body, peer_->batch);
    fabric_->has_output(*this);
  } else if (peer_->up) {
    fabric_->sink().to_control(peer_->host, encode(Acknowledge{id_, serial}));
  }
  if (const auto* end = std::get_if<End>(&notice)) return receive_end(*end);
  if (const auto heard = as_heard(peer_->host, remote().port, notice)) {
    receiver_.noticed(*this, *heard);
  }
}

void Channel::acknowledged(std::uint64_t serial) {
  std::erase_if(notices_, [&](const Unacknowledged& notice) { return notice.serial == serial; });
}

void Channel::received(std::uint8_t kind, BytesView body) {
  Reader in(body);
  switch (kind) {
    case in_channel::kPing:
      if (body.size() != 8 || !can_send()) return;
      tx_->sealer.message(in_channel::kPong, body, peer_->batch);
      return fabric_->has_output(*this);
    case in_channel::kPong: {
      const Nanoseconds sent(static_cast<std::int64_t>(in.u64()));
      const Nanoseconds rtt = fabric_->now().time_since_epoch() - sent;
      // Only our own clock comes back; what is impossible is a peer's nonsense.
      if (!in.finished() || rtt < Nanoseconds{} || rtt > fabric_->limits().keepalive) return;
      const bool first = !rtt_;
      rtt_ = first || rtt_is_old_ ? rtt : (*rtt_ * 7 + rtt) / 8;  // RFC 6298, alpha
      rtt_is_old_ = false;
      if (first) receiver_.channel_ready(*this);
      return;
    }
    case in_channel::kNotify:
      if (const auto notice = decode_in_channel(body)) {
        receive_notice(notice->first, notice->second, false);
      }
      return;
    case in_channel::kAck: {
      const std::uint64_t serial = in.u64();
      if (in.finished()) acknowledged(serial);
      return;
    }
    default:
      return;  // of a later version
  }
}

// ---- the end of a segment ----

void Channel::receive_end(const End& end) {
  if (end.serial <= last_end_) return;
  last_end_ = end.serial;
  waiting_.clear();
  waiting_.push_back({end, fabric_->now() + receiver_.marker_wait()});
  check_waiting();
}

bool Channel::all_arrived(const End& end) const {
  if (end.generation == 0) return true;
  const auto rx = std::ranges::find(rx_, end.generation, &Inbound::generation);
  if (rx == rx_.end()) return true;  // of a key that is gone: nothing more can be opened
  return rx->opener->settled_below(end.counter, fabric_->now());
}

// When, if nothing more comes, some of what is missing counts as lost.
Instant Channel::settles_at(const End& end) const {
  const auto rx = std::ranges::find(rx_, end.generation, &Inbound::generation);
  return rx == rx_.end() ? Instant::max() : rx->opener->settles_at(fabric_->now());
}

void Channel::check_waiting() {
  std::vector<Waiting> done;
  std::erase_if(waiting_, [&](const Waiting& waiting) {
    if (!all_arrived(waiting.end) && fabric_->now() < waiting.deadline) {
      wake(std::min(waiting.deadline, settles_at(waiting.end)));
      return false;
    }
    done.push_back(waiting);
    return true;
  });
  for (const Waiting& waiting : done) {
    receiver_.ended(*this, waiting.end, all_arrived(waiting.end));
  }
}

}  // namespace godwit::wire
