// What an Engine does as one of several of its host (shard.hh).
#include <algorithm>
#include <iterator>

#include "base/check.hh"
#include "wire/engine.hh"
#include "wire/paths.hh"
#include "wire/port.hh"

namespace godwit::wire {

Engine::Unit::Unit() = default;
Engine::Unit::~Unit() = default;

// ---- datagrams ----

Engine::Taker Engine::taker_of(std::uint32_t index) const {
  const std::uint16_t tag = tag_of(index);
  if (tag != tag_ || shard_.count == 1) return {.tag = tag, .shard = 0};
  if (const auto known = by_index_.find(index); known != by_index_.end()) {
    return {.tag = tag, .shard = known->second.shard.value_or(shard_.index)};
  }
  return {.tag = tag, .shard = static_cast<std::uint16_t>(index & shard_mask(shard_.count))};
}

// Datagrams of another shard, or of another host, to which the first shard may forward them.
void Engine::pass_on(const PeerAddress& from, Taker to, BytesView run, std::uint16_t segment_size) {
  if (to.shard != shard_.index && to.shard < shard_.count) {
    shard_.siblings->datagrams(to.shard, from, run, segment_size);
  } else if (to.tag != tag_) {
    relay(from, to.tag, run, segment_size);
  } else {
    strays_ += (run.size() + segment_size - 1) / segment_size;
  }
}

void Engine::release_index(std::uint32_t index) {
  by_index_.erase(index);
  if (travelled_.erase(index) > 0) shard_.siblings->release_index(index);
}

// ---- paths ----

void Engine::use_route(const std::string& host, const Route& route, Instant now) {
  const Call call(*this, now);
  CHECK(!shard_.is_first());
  Peer& to = peer(host);
  const bool is_same_way = to.route.target == route.target && to.route.via == route.via;
  to.route = route;
  if (!is_same_way) return use_new_way(to);
  for (const auto& [id, channel] : channels_) {
    if (&channel->peer() == &to) channel->mtu_changed();
  }
}

// The first shard watches a path closely while frames go out on it: it is told often enough.
void Engine::note_sent(Peer& peer) {
  if (peer.paths) return peer.paths->sent();
  if (peer.sent_told && now_ - *peer.sent_told < limits_.busy_for / 4) return;
  peer.sent_told = now_;
  shard_.siblings->frames_sent(peer.host);
}

void Engine::frames_sent(const std::string& host, Instant now) {
  const Call call(*this, now);
  if (Peer& to = peer(host); to.paths) to.paths->sent();
}

// ---- ports that change the shard ----

std::vector<std::uint32_t> Engine::Unit::indices() const {
  std::vector<std::uint32_t> all;
  for (const Travelling& each : channels) std::ranges::copy(each.indices, std::back_inserter(all));
  return all;
}

void Engine::indices_moved(std::span<const std::uint32_t> indices, std::uint16_t shard) {
  CHECK(shard_.is_first() && shard != shard_.index);
  for (const std::uint32_t index : indices) by_index_[index] = {.shard = shard};
}

std::shared_ptr<Engine::Unit> Engine::take(std::span<const PortId> ports, Instant now) {
  const Call call(*this, now);
  auto unit = std::make_shared<Unit>();
  for (const PortId& id : ports) {
    auto at = ports_.lower_bound({id, 0});
    while (at != ports_.end() && at->first.port == id) {
      if (const auto& wire = at->second->wire()) wired_.erase({wire->id, at->first});
      if (const auto its = channels_of_.extract(at->first)) {
        for (Channel* channel : its.mapped()) unit->channels.push_back(let_go(*channel));
      }
      at->second->leave();
      unit->ports.push_back(std::move(at->second));
      at = ports_.erase(at);
    }
  }
  ++channel_deletions_;
  return unit;
}

Engine::Travelling Engine::let_go(Channel& channel) {
  Travelling travelling{.channel = nullptr, .host = channel.host(), .indices = channel.indices()};
  for (const std::uint32_t index : travelling.indices) {
    by_index_.erase(index);
    travelled_.erase(index);
  }
  channel.leave();
  travelling.channel = std::move(channels_.extract(channel.id()).mapped());
  return travelling;
}

void Engine::adopt(Unit& unit, Instant now) {
  const Call call(*this, now);
  Fabric& fabric = *this;
  ports_due_.make_room(ports_.size() + unit.ports.size());
  channels_due_.make_room(channels_.size() + unit.channels.size());
  for (auto& port : unit.ports) {
    port->enter(fabric);
    const PortEpoch id = port->id();
    if (const auto& wire = port->wire()) wired_.insert({wire->id, id});
    CHECK(ports_.emplace(id, std::move(port)).second, "port {} is here", id.port.text());
  }
  for (Travelling& each : unit.channels) {
    Peer& to = peer(each.host);
    Channel& channel = *each.channel;
    channel.enter(to, fabric);
    for (const std::uint32_t index : each.indices) {
      by_index_[index] = {.channel = &channel};
      travelled_.insert(index);
    }
    channels_of_[channel.local()].push_back(&channel);
    channels_.emplace(channel.id(), std::move(each.channel));
  }
  ++channel_deletions_;
  unit.ports.clear();
  unit.channels.clear();
}

}  // namespace godwit::wire
