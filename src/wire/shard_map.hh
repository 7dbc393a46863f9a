#pragma once
// Which shard of this host (shard.hh) has which port, as the thread knows that tells shards what to
// do. Both ends of a wire within this host are in one shard. Pure.
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "base/bytes.hh"
#include "wire/shard.hh"
#include "wire/types.hh"

namespace godwit::wire {

class ShardMap final {
 public:
  // Ports that are to go to another shard, all of one wire.
  struct Relocation {
    std::vector<PortId> ports{};
    std::uint16_t from = 0, to = 0;
  };

  // Nothing: it is not here.
  std::optional<std::uint16_t> of(const PortId& port) const;
  std::vector<PortId> ports() const;
  // With the other end of its wire, if that is here.
  std::vector<PortId> unit_of(const PortId& port) const;

  // The port is here, at one more epoch; its shard, which is `shard` if it was not here before.
  std::uint16_t add(const PortId& port, std::uint16_t shard);
  void erase(const PortId& port);  // at all epochs
  // `present`: ports of which shards have an epoch, asked when additions() was `at`. All others,
  // but for what was added since, are gone.
  void prune(const std::set<PortId>& present, std::uint64_t at);
  std::uint64_t additions() const { return additions_; }
  // A wire joins them, the first of which is here. What has to move before they are connected.
  std::optional<Relocation> join(const PortId& local, const PortId& remote);
  void relocated(const Relocation& relocation);

  // Those that a peer's control message may concern.
  std::set<std::uint16_t> takers(BytesView control_message) const;

 private:
  struct Entry {
    std::uint16_t shard = 0;
    std::optional<PortId> peer{};
    std::uint64_t added = 0;
  };
  std::map<PortId, Entry> entries_;
  std::uint64_t additions_ = 0;
};

}  // namespace godwit::wire
