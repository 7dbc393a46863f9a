#pragma once
// The engines of one host, one or several (wire/shard.hh), as agent::WireThreads runs them: what is
// called goes to the shard that has the port, what shards say to each other arrives afterwards, in
// order. Ports go from shard to shard all the time, by chance.
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "wire/engine.hh"
#include "wire/shard_map.hh"

namespace godwit::sim {

class Engines final {
 public:
  Engines(const std::string& self, wire::EngineSink& sink, wire::Engine::Random random,
          std::uint16_t shards);
  ~Engines();

  // As wire::Engine's.
  void session_up(const std::string& peer, std::span<const std::byte, 32> secret, bool is_initiator,
                  std::span<const wire::PeerAddress> addresses, Instant now);
  void session_down(const std::string& peer, Instant now);
  void control(const std::string& peer, BytesView message, Instant now);
  void frames_from_port(const PortId& port, std::span<const BytesView> frames, Instant now);
  void datagrams(const wire::PeerAddress& from, MutableBytes run, std::uint16_t segment_size,
                 Instant now);
  void tick(Instant now);
  Instant next_tick() const;
  std::string overlooked() const;
  void add_port(const wire::PortConfig& config, Instant now);
  void remove_port(const PortId& port, Instant now);
  void connect(const wire::WireConfig& wire, Instant now);
  void disconnect(const WireId& wire, Instant now);
  void offer_move(const PortId& port, const std::string& to_host, Epoch new_epoch, Instant now);
  void pause(const PortId& port, std::span<const BytesView> undelivered, Instant now);
  void resume(const PortId& port, Instant now);
  void release(const PortId& port, Instant now);
  void drop_live(const wire::PortEpoch& id, Instant now);
  void prepare(const wire::PortConfig& config, const std::string& from_host,
               std::span<const wire::WireConfig> wires, Instant now);
  void run(const PortId& port, Instant now);
  void discard(const PortId& port, Instant now);
  std::vector<wire::WireStats> wire_stats() const;
  std::vector<wire::PortStats> port_stats() const;
  std::optional<wire::PortStats> port_stats(const PortId& port) const;
  std::optional<Epoch> live_epoch(const PortId& port) const;

 private:
  class Siblings;
  wire::Engine& of(const PortId& port) const { return *engines_[map_.of(port).value_or(0)]; }
  // `call` of some of them, and what they say to each other then.
  void served(Instant now, const std::function<void()>& call);
  void at(const PortId& port, Instant now, const std::function<void(wire::Engine&)>& call);
  void relocate(const wire::ShardMap::Relocation& relocation, Instant now);
  void relocate_some(Instant now);

  wire::Engine::Random random_;
  wire::ShardMap map_;
  std::vector<std::unique_ptr<Siblings>> siblings_;
  std::vector<std::unique_ptr<wire::Engine>> engines_;
  std::deque<std::function<void(Instant)>> said_;
};

}  // namespace godwit::sim
