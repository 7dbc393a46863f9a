#include "wire/engine.hh"

#include <algorithm>

#include "base/check.hh"
#include "crypto/hkdf.hh"
#include "wire/fleets.hh"
#include "wire/paths.hh"
#include "wire/port.hh"

namespace godwit::wire {

Engine::Engine(std::string self, EngineSink& sink, Random random, Limits limits, Shard shard)
    : self_(std::move(self)),
      sink_(sink),
      random_(std::move(random)),
      limits_(limits),
      shard_(shard),
      has_aes_(crypto::has_aes_hardware()),
      tag_(shard.siblings != nullptr ? shard.tag : static_cast<std::uint16_t>(random_())),
      next_index_(static_cast<std::uint16_t>(random_())) {
  CHECK(shard.index < shard.count && shard.count <= kMostShards);
  CHECK(shard.count == 1 || shard.siblings != nullptr);
}

// The others may be gone.
Engine::~Engine() { travelled_.clear(); }

void Engine::flush() {
  for (Channel* channel : output_) {
    channel->flush();
    channel->awaits_flush = false;
  }
  for (Channel* channel : output_) send(channel->peer());
  output_.clear();
}

void Engine::send(Peer& to) {
  if (to.batch.empty()) return;
  CHECK(to.route.target, "sealed for {}, whose address is not known", to.host);
  sink_.to_path(*to.route.target, to.batch);
  if (std::exchange(to.sends_frames, false)) note_sent(to);
  to.batch.clear();
}

void Engine::has_output(Channel& channel) {
  if (!std::exchange(channel.awaits_flush, true)) output_.push_back(&channel);
}

// ---- sessions ----

Peer& Engine::peer(const std::string& host) {
  Peer& peer = peers_[host];
  if (peer.host.empty()) {
    peer.host = host;
    peer.route.mtu = limits_.mtu_floor;
    if (shard_.is_first()) {
      Fabric& fabric = *this;
      paths_due_.make_room(peers_.size());
      peer.paths = std::make_unique<Paths>(peer, fabric);
      refresh_route(peer);
    }
  }
  return peer;
}

void Engine::session_up(const std::string& host, std::span<const std::byte, 32> secret,
                        bool is_initiator, std::span<const PeerAddress> addresses, Instant now) {
  const Call call(*this, now);
  Peer& to = peer(host);
  std::ranges::copy(secret, to.secret.begin());
  std::array<std::byte, 4> tag{};
  crypto::hkdf_expand(secret, as_bytes("godwit wire session tag"), tag);
  to.session_tag = from_big_endian<std::uint32_t>(tag.data());
  to.up = true;
  to.down_at.reset();
  to.is_initiator = is_initiator;
  to.next_generation = first_generation(shard_.index);
  to.highest_offered.fill(0);
  if (to.paths) {
    to.paths->session_up(addresses);
    refresh_route(to);
  }
  for (const auto& [id, channel] : channels_) {
    if (&channel->peer() != &to) continue;
    channel->session_up();
    wake_owner(*channel);  // the session may have told the first address
  }
  for (const auto& [id, port] : ports_) port->session_up(host);
}

void Engine::session_down(const std::string& host, Instant now) {
  const Call call(*this, now);
  Peer& to = peer(host);
  if (std::exchange(to.up, false)) to.down_at = now_;
}

void Engine::control(const std::string& host, BytesView message, Instant now) {
  const Call call(*this, now);
  const auto decoded = decode_control(message);
  if (!decoded) return void(++bad_control_);
  if (const auto* want = std::get_if<Want>(&*decoded)) {
    if (Channel* channel = admitted_channel(host, want->channel)) channel->wanted(*want);
  } else if (const auto* offer = std::get_if<Offer>(&*decoded)) {
    Channel* channel = find_channel(offer->channel);
    if (channel && channel->host() == host) channel->offered(*offer);
  } else if (const auto* notify = std::get_if<Notify>(&*decoded)) {
    Channel* channel = admitted_channel(host, notify->channel);
    channel ? channel->control_notice(*notify) : stranger_notice(host, *notify);
  } else if (const auto* acknowledge = std::get_if<Acknowledge>(&*decoded)) {
    Channel* channel = find_channel(acknowledge->channel);
    if (channel && channel->host() == host) channel->acknowledged(acknowledge->serial);
  } else if (const auto* endpoints = std::get_if<Endpoints>(&*decoded)) {
    if (Peer& to = peer(host); to.paths) {
      to.paths->endpoints(*endpoints);
      refresh_route(to);
    }
  } else if (const auto* taken = std::get_if<EndpointsTaken>(&*decoded)) {
    if (Peer& to = peer(host); to.paths) to.paths->taken(*taken);
  }
}

// The channel if `host` may use it; made when this is the first we hear of it.
Channel* Engine::admitted_channel(const std::string& host, const ChannelId& id) {
  if (Channel* channel = find_channel(id)) return channel->host() == host ? channel : nullptr;
  for (const PortEpoch& end : {id.low, id.high}) {
    Port* local = port(end);
    if (local && local->admits(id, host)) return open_channel(id, end, host);
  }
  return nullptr;
}

// A port that we know elsewhere, or know at another epoch of ours, says where it is: it or we
// forgot. Whoever speaks must be that host itself.
void Engine::stranger_notice(const std::string& host, const Notify& notify) {
  const auto* said = std::get_if<Move>(&notify.notice);
  if (!said) return;
  const auto heard = as_heard(host, said->port.port, *said);
  const auto* move = heard ? std::get_if<Move>(&*heard) : nullptr;
  if (!move || move->host != host) return;
  for (const PortEpoch& end : {notify.channel.low, notify.channel.high}) {
    if (end.port == move->port.port) continue;
    Port* local = newest(end.port);
    if (!local || !local->wire() || local->wire()->id != notify.channel.wire) continue;
    if (!local->is_peers_fleet(host)) continue;
    sink_.to_control(host, encode(Acknowledge{notify.channel, notify.serial}));
    return local->noticed(host, *move);
  }
}

// ---- traffic ----

void Engine::frames_from_port(const PortId& id, std::span<const BytesView> frames, Instant now) {
  const Call call(*this, now);
  if (Port* from = newest(id)) from->from_guest(frames);
}

void Engine::datagrams(const PeerAddress& from, MutableBytes run, std::uint16_t segment_size,
                       Instant now) {
  const Call call(*this, now);
  CHECK(segment_size > 0);
  while (!run.empty()) {
    MutableBytes datagram = run.first(std::min<std::size_t>(segment_size, run.size()));
    const auto index = receiver_index(datagram);
    if (!index) {
      ++strays_;
    } else if (const Taker taker = taker_of(*index); taker == Taker{tag_, shard_.index}) {
      arrived(from, *index, datagram);
    } else {
      // All that follow for the same taker at once.
      std::size_t size = datagram.size();
      while (size < run.size()) {
        const auto next = receiver_index(run.subspan(size));
        if (!next || taker_of(*next) != taker) break;
        size += std::min<std::size_t>(segment_size, run.size() - size);
      }
      datagram = run.first(size);
      pass_on(from, taker, datagram, segment_size);
    }
    run = run.subspan(datagram.size());
  }
}

void Engine::arrived(const PeerAddress& from, std::uint32_t index, MutableBytes datagram) {
  const auto found = by_index_.find(index);
  if (found == by_index_.end())
    ++strays_;
  else if (found->second.channel != nullptr)
    found->second.channel->datagram(index, datagram);
  else
    found->second.paths->datagram(from, index, datagram);
}

void Engine::erase_channel(Channel& channel) {
  if (channel.awaits_flush) {
    std::erase(output_, &channel);
    channel.flush();
    send(channel.peer());
  }
  channel.give_up();
  if (Port* owner = port(channel.local())) owner->has_lost(channel);
  const auto others = channels_of_.find(channel.local());
  std::erase(others->second, &channel);
  if (others->second.empty()) channels_of_.erase(others);
  channels_.erase(ChannelId(channel.id()));
  ++channel_deletions_;
}

std::span<Channel* const> Engine::channels_of(const PortEpoch& port) const {
  const auto found = channels_of_.find(port);
  if (found == channels_of_.end()) return {};
  return found->second;
}

// ---- ports and wires ----

Port* Engine::port(const PortEpoch& id) {
  const auto found = ports_.find(id);
  return found == ports_.end() ? nullptr : found->second.get();
}

// The highest epoch of the port here, or the highest in a given state.
Port* Engine::newest(const PortId& id, std::optional<PortState> state) const {
  for (auto it = ports_.upper_bound({id, std::numeric_limits<Epoch>::max()});
       it != ports_.begin();) {
    --it;
    if (it->first.port != id) break;
    if (!state || it->second->state() == *state) return it->second.get();
  }
  return nullptr;
}

void Engine::erase_port(const PortEpoch id) {
  for (auto its = channels_of(id); !its.empty(); its = channels_of(id)) {
    erase_channel(*its.front());
  }
  const auto found = ports_.find(id);
  if (const auto& wire = found->second->wire()) {
    wired_.erase({wire->id, id});
    wake_ends(wire->id);
  }
  ports_.erase(found);
}

void Engine::add_port(const PortConfig& config, Instant now) {
  const Call call(*this, now);
  auto& slot = ports_[{config.id, config.epoch}];
  Fabric& fabric = *this;
  ports_due_.make_room(ports_.size());
  if (!slot) slot = std::make_unique<Port>(config, PortState::live, fabric);
}

void Engine::remove_port(const PortId& id, Instant now) {
  const Call call(*this, now);
  while (Port* found = newest(id)) erase_port(found->id());
}

bool Engine::connect(const WireConfig& wire, Instant now) {
  const Call call(*this, now);
  Port* local = newest(wire.local);
  if (!local || wire.local == wire.remote) return false;
  erase_retired(local->id());  // a channel of this name may have been disconnected a moment ago
  if (local->wire()) {
    wired_.erase({local->wire()->id, local->id()});
    wake_ends(local->wire()->id);
  }
  local->connect(wire);
  wired_.insert({wire.id, local->id()});
  wake_ends(wire.id);
  return true;
}

void Engine::disconnect(const WireId& wire, Instant now) {
  const Call call(*this, now);
  const auto begin = wired_.lower_bound({wire, {}});
  auto end = begin;
  for (; end != wired_.end() && end->first == wire; ++end) port(end->second)->disconnect();
  wired_.erase(begin, end);
}

// ---- moving ----

void Engine::offer_move(const PortId& id, const std::string& to_host, Epoch new_epoch,
                        Instant now) {
  const Call call(*this, now);
  if (Port* found = newest(id, PortState::live)) found->offer(to_host, new_epoch);
}

void Engine::pause(const PortId& id, std::span<const BytesView> undelivered, Instant now) {
  const Call call(*this, now);
  if (Port* found = newest(id, PortState::live)) found->pause(undelivered);
}

void Engine::resume(const PortId& id, Instant now) {
  const Call call(*this, now);
  Port* found = newest(id, PortState::paused);
  if (!found) found = newest(id, PortState::live);
  if (found) found->resume();
}

void Engine::release(const PortId& id, Instant now) {
  const Call call(*this, now);
  if (Port* found = newest(id, PortState::paused)) found->release();
}

void Engine::drop_live(const PortEpoch& id, Instant now) {
  const Call call(*this, now);
  const Port* found = port(id);
  if (!found || found->state() != PortState::live) return;
  erase_port(id);
  sink_.event({EventKind::moved_away, id.port, id.epoch, {}});
}

void Engine::prepare(const PortConfig& config, const std::string& from_host,
                     std::span<const WireConfig> wires, Instant now) {
  const Call call(*this, now);
  CHECK(wires.size() <= 1, "a port has at most one wire");
  if (Port* stale = newest(config.id, PortState::held); stale && stale->id().epoch < config.epoch) {
    erase_port(stale->id());
  }
  if (const Port* known = newest(config.id); known && known->id().epoch >= config.epoch) return;
  auto& slot = ports_[{config.id, config.epoch}];
  Fabric& fabric = *this;
  ports_due_.make_room(ports_.size());
  slot = std::make_unique<Port>(config, PortState::held, fabric);
  slot->expect_from(from_host, wires.empty() ? nullptr : &wires.front());
  if (wires.empty()) return;
  wired_.insert({wires.front().id, slot->id()});
  wake_ends(wires.front().id);
}

void Engine::run(const PortId& id, Instant now) {
  const Call call(*this, now);
  if (Port* found = newest(id, PortState::held)) found->run();
}

void Engine::discard(const PortId& id, Instant now) {
  const Call call(*this, now);
  if (Port* found = newest(id, PortState::held)) erase_port(found->id());
}

// ---- channels ----

Channel* Engine::find_channel(const ChannelId& id) {
  const auto found = channels_.find(id);
  return found == channels_.end() ? nullptr : found->second.get();
}

Channel* Engine::open_channel(const ChannelId& id, const PortEpoch& local,
                              const std::string& host) {
  if (Channel* found = find_channel(id)) return found;
  Port* owner = port(local);
  CHECK(owner && owner->wire() && host != self_, "{} at {}", local.port.text(), host);
  if (channels_of(local).size() >= limits_.channels_per_port) return nullptr;
  Peer& to = peer(host);
  Fabric& fabric = *this;
  channels_due_.make_room(channels_.size() + 1);
  auto channel = std::make_unique<Channel>(id, local, to, fabric, *owner);
  Channel* made = channels_.emplace(id, std::move(channel)).first->second.get();
  channels_of_[local].push_back(made);
  if (to.up)
    made->session_up();
  else
    sink_.event({EventKind::session_needed, local.port, local.epoch, host});
  return made;
}

bool Engine::detour_confirmed(const PortEpoch& to) {
  return std::ranges::any_of(channels_of(to), [&](const Channel* each) {
    return each->id().is_detour() && each->id().high == to && each->confirmed();
  });
}

std::vector<Nanoseconds> Engine::rtts(const PortEpoch& local) {
  std::vector<Nanoseconds> all;
  for (const Channel* each : channels_of(local)) all.push_back(each->rtt());
  std::ranges::sort(all, std::greater{});
  return all;
}

void Engine::add_drops(const PortEpoch& local, Drops& drops) const {
  for (const Channel* each : channels_of(local)) each->add_drops(drops);
}

// ---- reports ----

std::vector<WireStats> Engine::wire_stats() const {
  std::vector<WireStats> all;
  for (const auto& [id, port] : ports_) {
    if (port->wire() && port->state() != PortState::forwarding) all.push_back(port->wire_stats());
  }
  return all;
}

std::vector<PortStats> Engine::port_stats() const {
  std::vector<PortStats> all;
  for (const auto& [id, port] : ports_) all.push_back(port->port_stats());
  return all;
}

std::optional<PortStats> Engine::port_stats(const PortId& id) const {
  const Port* found = newest(id);
  if (!found) return std::nullopt;
  return found->port_stats();
}

std::optional<Epoch> Engine::live_epoch(const PortId& id) const {
  const Port* found = newest(id, PortState::live);
  if (!found) return std::nullopt;
  return found->id().epoch;
}

}  // namespace godwit::wire
