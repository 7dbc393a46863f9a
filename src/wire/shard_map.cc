#include "wire/shard_map.hh"

#include <iterator>

#include "base/check.hh"
#include "wire/control.hh"

namespace godwit::wire {
namespace {

// Nothing: it is about paths.
std::optional<ChannelId> channel_of(const ControlMessage& message) {
  return std::visit(
      [](const auto& each) -> std::optional<ChannelId> {
        if constexpr (requires { each.channel; }) return each.channel;
        return std::nullopt;
      },
      message);
}

}  // namespace

std::optional<std::uint16_t> ShardMap::of(const PortId& port) const {
  const auto found = entries_.find(port);
  if (found == entries_.end()) return std::nullopt;
  return found->second.shard;
}

std::vector<PortId> ShardMap::ports() const {
  std::vector<PortId> all;
  for (const auto& [port, entry] : entries_) all.push_back(port);
  return all;
}

std::vector<PortId> ShardMap::unit_of(const PortId& port) const {
  std::vector<PortId> unit{port};
  const auto found = entries_.find(port);
  if (found == entries_.end() || !found->second.peer) return unit;
  const auto peer = entries_.find(*found->second.peer);
  if (peer != entries_.end() && peer->second.peer == port) unit.push_back(peer->first);
  return unit;
}

std::uint16_t ShardMap::add(const PortId& port, std::uint16_t shard) {
  Entry& entry = entries_.try_emplace(port, Entry{.shard = shard}).first->second;
  entry.added = ++additions_;
  return entry.shard;
}

void ShardMap::erase(const PortId& port) { entries_.erase(port); }

void ShardMap::prune(const std::set<PortId>& present, std::uint64_t at) {
  std::erase_if(entries_, [&](const auto& entry) {
    return entry.second.added <= at && !present.contains(entry.first);
  });
}

std::optional<ShardMap::Relocation> ShardMap::join(const PortId& local, const PortId& remote) {
  const auto here = entries_.find(local);
  const auto there = entries_.find(remote);
  if (here == entries_.end()) return std::nullopt;
  here->second.peer = remote;
  if (there == entries_.end()) return std::nullopt;
  there->second.peer = local;
  if (here->second.shard == there->second.shard) return std::nullopt;
  return Relocation{.ports = {local}, .from = here->second.shard, .to = there->second.shard};
}

void ShardMap::relocated(const Relocation& relocation) {
  for (const PortId& port : relocation.ports) entries_.at(port).shard = relocation.to;
}

std::set<std::uint16_t> ShardMap::takers(BytesView control_message) const {
  const auto message = decode_control(control_message);
  const auto channel = message ? channel_of(*message) : std::nullopt;
  if (!channel) return {0};
  std::set<std::uint16_t> shards;
  for (const PortId& port : {channel->low.port, channel->high.port}) {
    if (const auto shard = of(port)) shards.insert(*shard);
  }
  if (shards.empty()) shards.insert(0);
  return shards;
}

}  // namespace godwit::wire
