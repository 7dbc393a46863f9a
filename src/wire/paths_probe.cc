// The probes of Paths: when they are sent, what they look like, what answers tell.
#include <algorithm>

#include "wire/datagram.hh"
#include "wire/paths.hh"

namespace godwit::wire {
namespace {

// A probe is never shorter than its answer, so that nobody gains by a forged source.
constexpr std::size_t kTokenBytes = 8, kAddressBytes = 18;
constexpr std::size_t kLeastProbe = kTokenBytes + kAddressBytes;
// A probe says whether it takes a relay: who sees it come from the relay's address would else take
// that for the prober's.
constexpr std::uint8_t kByRelay = 1;

}  // namespace

// ---- probing ----

Nanoseconds Paths::suspect_after(const Path& path) const {
  return std::max<Nanoseconds>(path.rtt * 2, fabric_.limits().busy_probe);
}

Nanoseconds Paths::dead_after(const Path& path) const {
  const Limits& limits = fabric_.limits();
  return std::max(limits.dead_after,
                  std::chrono::duration_cast<Nanoseconds>(path.rtt * limits.dead_after_rtts));
}

bool Paths::is_suspect(const Path& path) const {
  return path.unanswered_since && fabric_.now() - *path.unanswered_since >= suspect_after(path);
}

bool Paths::is_dead(const Path& path) const {
  return path.unanswered_since && fabric_.now() - *path.unanswered_since >= dead_after(path);
}

Nanoseconds Paths::interval_of(const Path& path) const {
  const Limits& limits = fabric_.limits();
  if (state_ != State::proven) return path.interval;
  if (&path == active_) {
    const bool busy = last_sent_ && fabric_.now() - *last_sent_ < limits.busy_for;
    return busy || path.unanswered_since ? limits.busy_probe : limits.keepalive;
  }
  if (is_suspect(*active_)) return limits.busy_probe;
  if (active_->via.empty()) return limits.keepalive;
  return path.via.empty() ? limits.direct_retry : limits.keepalive;
}

void Paths::probe(Path& path, std::uint16_t size) {
  if (!tx_ || tx_->exhausted()) return;
  const std::uint64_t token = fabric_.random();
  path.sent[path.sent_next++ % path.sent.size()] = {token, size, fabric_.now()};
  Bytes body;
  Writer(body).u64(token).u8(path.via.empty() ? 0 : kByRelay);
  body.resize(std::max<std::size_t>(kLeastProbe, size == 0 ? 0 : payload_capacity(size) - 1));
  seal(path.address, in_channel::kProbe, body);
}

void Paths::probe_due(Path& path) {
  const Instant now = fabric_.now();
  const Limits& limits = fabric_.limits();
  path.interval = std::clamp(path.interval * 2, limits.first_probe, limits.idle_probe);
  path.probed = now;
  path.next = now + interval_of(path);
  if (!path.unanswered_since) path.unanswered_since = now;
  probe(path, 0);
  const bool full = path.search.confirmed() > limits.mtu_floor_ipv6;
  if (&path != active_ || state_ != State::proven || !full) return;
  if (!path.full_since) path.full_since = now;
  probe(path, path.search.confirmed());
}

void Paths::probe_all() {
  for (const auto& path : paths_) {
    path->next = fabric_.now();
    path->interval = {};
  }
  due(fabric_.now());
}

// Traffic after a silence: is the path still there?
void Paths::sent() {
  const Instant now = fabric_.now();
  const bool was_idle = !last_sent_ || now - *last_sent_ >= fabric_.limits().busy_for;
  last_sent_ = now;
  if (!was_idle || active_ == nullptr || state_ != State::proven) return;
  active_->next = std::min(active_->next, now);
  due(now);
}

void Paths::tick() {
  const Instant now = fabric_.now();
  if (now < due_) return fabric_.wake(*this, due_);
  due_ = now + fabric_.limits().keepalive;
  tell();
  if (tx_) {
    forget_old();
    refresh_relays();
    check_active();
    for (const auto& path : paths_) {
      // It may be due sooner than was thought when it was last probed.
      path->next = std::min(path->next, path->probed + interval_of(*path));
      if (now >= path->next) probe_due(*path);
      due_ = std::min(due_, path->next);
    }
    if (state_ == State::proven) tick_active();
  }
  fabric_.wake(*this, due_);
}

void Paths::tick_active() {
  const Instant now = fabric_.now();
  for (const auto& since : {active_->unanswered_since, active_->full_since}) {
    if (!since) continue;
    for (const Instant when : {*since + suspect_after(*active_), *since + dead_after(*active_)}) {
      if (when > now) due_ = std::min(due_, when);
    }
  }
  if (peer_.channels == 0) return;
  if (const auto size = active_->search.probe(now, suspect_after(*active_))) probe(*active_, *size);
  due_ = std::min(due_, active_->search.next());
}

// ---- datagrams of the probe lane ----

void Paths::seal(const PeerAddress& to, std::uint8_t kind, BytesView body) {
  DatagramBatch& batch = fabric_.scratch();
  tx_->message(kind, body, batch);
  fabric_.sink().to_path(to, batch);
  batch.clear();
}

void Paths::datagram(const PeerAddress& from, std::uint32_t index, MutableBytes datagram) {
  struct Sink final : OpenerSink {
    Sink(Paths& paths_in, const PeerAddress& from_in) : paths(paths_in), from(from_in) {}
    void frame(BytesView) override {}
    void message(std::uint8_t kind, BytesView body, std::uint64_t) override {
      paths.received(from, kind, body);
    }
    Paths& paths;
    const PeerAddress& from;
  };
  const auto rx = std::ranges::find(rx_, index, &Inbound::index);
  if (rx == rx_.end()) return;
  Sink sink(*this, from);
  (void)rx->opener->open(datagram, fabric_.now(), sink);
}

void Paths::received(const PeerAddress& from, std::uint8_t kind, BytesView body) {
  Reader in(body);
  const std::uint64_t token = in.u64();
  if (kind == in_channel::kProbe && body.size() >= kLeastProbe) {
    return probed(from, token, in.u8() == kByRelay);
  }
  if (kind != in_channel::kAnswer) return;
  const PeerAddress seen = read_address(in);
  if (in.finished()) answered(token, seen);
}

void Paths::probed(const PeerAddress& from, std::uint64_t token, bool by_relay) {
  if (!tx_ || tx_->exhausted()) return;
  Bytes body;
  Writer out(body);
  out.u64(token);
  write(out, from);
  seal(from, in_channel::kAnswer, body);
  const std::string via = fabric_.host_at(from, peer_.host);
  if (by_relay == via.empty()) return;  // of a relay that we do not know, or not what it says
  // From somewhere new: it may not be where it was any more.
  if (find(from, via) == nullptr && state_ == State::proven) active_->next = fabric_.now();
  Path* path = add(from, via, false);
  if (path == nullptr) return;
  // Whoever probes has an opening there now, or a reason to doubt: see whether we are heard, too.
  if (path->answered && fabric_.now() - *path->answered < fabric_.limits().direct_retry) return;
  path->next = std::max(path->probed + fabric_.limits().first_probe, fabric_.now());
  due(path->next);
}

void Paths::answered(std::uint64_t token, const PeerAddress& seen) {
  const Instant now = fabric_.now();
  for (const auto& path : paths_) {
    const auto sent = std::ranges::find(path->sent, token, &Sent::token);
    if (token == 0 || sent == path->sent.end()) continue;
    const Sent probe = std::exchange(*sent, {});
    const Nanoseconds rtt = now - probe.at;
    path->rtt = path->answered ? (path->rtt * 7 + rtt) / 8 : rtt;  // RFC 6298, alpha
    path->answered = now;
    path->unanswered_since.reset();
    path->interval = {};
    if (probe.size == path->search.confirmed()) path->full_since.reset();
    if (path->search.answered(probe.size, now)) {
      path->full_since.reset();
      if (path.get() == active_) fabric_.mtu_changed(peer_);
    }
    if (path->via.empty()) {
      fabric_.note_proven(path->address, peer_);
      if (fabric_.host_at(seen, peer_.host).empty()) fabric_.note_reflexive(peer_.host, seen);
    }
    consider(*path);
    return due(now + milliseconds(1));
  }
}

}  // namespace godwit::wire
