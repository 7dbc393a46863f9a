// What an Engine does for the paths of its peers: addresses, tags, and what it forwards for others.
#include <algorithm>

#include "base/host_name.hh"
#include "wire/engine.hh"
#include "wire/paths.hh"
#include "wire/port.hh"

namespace godwit::wire {
namespace {

// Of what peers saw, so many are told: behind a NAT with endpoint-independent mapping there is one.
constexpr std::size_t kMaxReflexive = 4;
// Sources that do not belong to proven paths any more are looked for beyond so many.
constexpr std::size_t kManySources = 4096;
constexpr double kRelayBurst = 0.02;  // seconds at the full rate

}  // namespace

// ---- receiver indices ----

// One that was given back is not given out again for as long as possible: late datagrams of its
// first owner would reach the second (and be refused: they have different keys).
std::uint32_t Engine::take_index(Destination destination) {
  const std::uint16_t mask = shard_mask(shard_.count);
  for (;;) {
    next_index_ = static_cast<std::uint16_t>((next_index_ & ~mask) + mask + 1);
    const auto index = std::uint32_t{tag_} << 16 | next_index_ | shard_.index;
    if (by_index_.try_emplace(index, destination).second) return index;
  }
}

// The first of two hosts that happen to have the same tag keeps it; the other is not relayed to
// from here.
void Engine::note_tag(std::uint32_t index, Peer& peer) {
  if (is_foreign(peer.host)) return;  // nothing is relayed to it
  std::erase_if(tags_, [&](const auto& known) { return known.second == &peer; });
  tags_.try_emplace(tag_of(index), &peer);
}

// ---- addresses ----

void Engine::use_addresses(std::vector<PeerAddress> addresses, Instant now) {
  const Call call(*this, now);
  configured_ = std::move(addresses);
  publish_addresses();
}

void Engine::addresses_changed(Instant now) {
  const Call call(*this, now);
  reflexive_.clear();
  publish_addresses();
  for (auto& [host, peer] : peers_) {
    if (peer.paths) peer.paths->probe_all();
  }
}

// Those that most peers see come first: a NAT that shows each peer another port shows none of use.
std::vector<PeerAddress> Engine::own_addresses() const {
  std::map<PeerAddress, int> seen;
  for (const auto& [observer, address] : reflexive_) ++seen[address];
  std::vector<std::pair<int, PeerAddress>> ranked;
  for (const auto& [address, count] : seen) {
    if (std::ranges::find(configured_, address) == configured_.end()) {
      ranked.emplace_back(-count, address);
    }
  }
  std::ranges::sort(ranked);
  std::vector<PeerAddress> addresses = configured_;
  addresses.resize(std::min(addresses.size(), kMaxAddresses - kMaxReflexive));
  for (std::size_t i = 0; i < std::min(ranked.size(), kMaxReflexive); ++i) {
    addresses.push_back(ranked[i].second);
  }
  return addresses;
}

void Engine::note_reflexive(const std::string& observer, const PeerAddress& seen) {
  if (is_foreign(observer)) return;  // our own hosts are told of it, and would go there
  auto& known = reflexive_[observer];
  if (known == seen) return;
  known = seen;
  publish_addresses();
}

void Engine::publish_addresses() {
  auto addresses = own_addresses();
  if (addresses == published_) return;
  published_ = std::move(addresses);
  for (auto& [host, peer] : peers_) {
    if (peer.up && peer.paths) peer.paths->publish();
  }
}

// ---- paths ----

// What the paths of a peer say, for our channels and the other shards.
void Engine::refresh_route(Peer& peer) {
  Route route = peer.paths->route();
  if (route == peer.route) return;
  peer.route = std::move(route);
  if (shard_.siblings != nullptr) shard_.siblings->route(peer.host, peer.route);
}

void Engine::path_changed(Peer& peer) {
  refresh_route(peer);
  use_new_way(peer);
}

void Engine::use_new_way(Peer& peer) {
  for (const auto& [id, channel] : channels_) {
    if (&channel->peer() != &peer) continue;
    channel->path_changed();
    wake_owner(*channel);
  }
}

void Engine::mtu_changed(Peer& peer) {
  refresh_route(peer);
  for (const auto& [id, channel] : channels_) {
    if (&channel->peer() == &peer) channel->mtu_changed();
  }
}

void Engine::note_proven(const PeerAddress& address, Peer& peer) {
  if (sources_.size() >= kManySources) {
    std::erase_if(sources_,
                  [](const auto& known) { return !known.second->paths->has_proven(known.first); });
  }
  sources_[address] = &peer;
}

Peer* Engine::proven_source(const PeerAddress& from) const {
  const auto found = sources_.find(from);
  if (found == sources_.end() || !found->second->paths->has_proven(from)) return nullptr;
  return found->second;
}

std::string Engine::host_at(const PeerAddress& address, const std::string& except) const {
  const Peer* found = proven_source(address);
  return found == nullptr || found->host == except ? std::string() : found->host;
}

std::vector<std::pair<std::string, PeerAddress>> Engine::relays_to(const std::string& host) const {
  std::vector<const Peer*> able;
  if (is_foreign(host)) return {};
  for (const auto& [name, peer] : peers_) {
    if (name != host && peer.paths->relays() && peer.paths->is_proven_directly()) {
      able.push_back(&peer);
    }
  }
  std::ranges::sort(able, {}, [](const Peer* peer) { return peer->paths->rtt(); });
  able.resize(std::min(able.size(), limits_.relays_tried));
  std::vector<std::pair<std::string, PeerAddress>> relays;
  for (const Peer* peer : able) relays.emplace_back(peer->host, *peer->paths->target());
  return relays;
}

// ---- forwarding for others ----

bool Engine::within_relay_rate(std::size_t bytes) {
  const auto rate = static_cast<double>(limits_.relay_bytes_per_second);
  const std::chrono::duration<double> passed = now_ - std::exchange(relay_refilled_, now_);
  relay_tokens_ = std::min(relay_tokens_ + passed.count() * rate, rate * kRelayBurst);
  if (relay_tokens_ < static_cast<double>(bytes)) return false;
  relay_tokens_ -= static_cast<double>(bytes);
  return true;
}

void Engine::relay(const PeerAddress& from, std::uint16_t tag, BytesView run,
                   std::uint16_t segment_size) {
  const std::size_t count = (run.size() + segment_size - 1) / segment_size;
  const auto to = tags_.find(tag);
  if (to == tags_.end()) {
    strays_ += count;
    return;
  }
  const Peer* source = proven_source(from);
  if (source == nullptr || is_foreign(source->host)) {
    relayed_.refused_source += count;
  } else if (to->second == source || !to->second->paths->is_proven_directly()) {
    relayed_.refused_target += count;
  } else if (!limits_.relays || !within_relay_rate(run.size())) {
    relayed_.refused_rate += count;
  } else {
    relayed_.datagrams += count;
    relayed_.bytes += run.size();
    sink_.relay(*to->second->paths->target(), run, segment_size);
  }
}

std::vector<PeerStats> Engine::peer_stats() const {
  std::vector<PeerStats> all;
  for (const auto& [host, peer] : peers_) {
    if (peer.paths) all.push_back(peer.paths->stats());
  }
  return all;
}

}  // namespace godwit::wire
