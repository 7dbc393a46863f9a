#include "engines.hh"

#include <algorithm>
#include <iterator>

namespace godwit::sim {
namespace {

// Before one of so many calls a port goes to another shard.
constexpr std::uint64_t kCallsPerRelocation = 100;

}  // namespace

class Engines::Siblings final : public wire::Siblings {
 public:
  Siblings(Engines& all, std::size_t index) : all_(all), index_(index) {}

  void route(const std::string& host, const wire::Route& route) override {
    others([host, route](wire::Engine& other, Instant now) { other.use_route(host, route, now); });
  }
  void frames_sent(const std::string& host) override {
    all_.said_.emplace_back(
        [this, host](Instant now) { all_.engines_.front()->frames_sent(host, now); });
  }
  void datagrams(std::uint16_t shard, const wire::PeerAddress& from, BytesView run,
                 std::uint16_t segment_size) override {
    all_.said_.emplace_back(
        [this, shard, from, bytes = to_bytes(run), segment_size](Instant now) mutable {
          all_.engines_[shard]->datagrams(from, bytes, segment_size, now);
        });
  }
  void release_index(std::uint32_t index) override {
    all_.said_.emplace_back([this, index](Instant) { all_.engines_.front()->forget_index(index); });
  }

 private:
  template <class Call>
  void others(Call call) {
    for (std::size_t i = 0; i < all_.engines_.size(); ++i) {
      if (i == index_) continue;
      all_.said_.emplace_back([this, i, call](Instant now) { call(*all_.engines_[i], now); });
    }
  }

  Engines& all_;
  const std::size_t index_;
};

Engines::Engines(const std::string& self, wire::EngineSink& sink, wire::Engine::Random random,
                 std::uint16_t shards)
    : random_(std::move(random)) {
  const auto tag = static_cast<std::uint16_t>(random_());
  for (std::uint16_t i = 0; i < shards; ++i) {
    siblings_.push_back(std::make_unique<Siblings>(*this, i));
    engines_.push_back(std::make_unique<wire::Engine>(
        self, sink, random_, wire::Limits{},
        wire::Shard{.index = i, .count = shards, .tag = tag, .siblings = siblings_.back().get()}));
  }
}

Engines::~Engines() = default;

void Engines::served(Instant now, const std::function<void()>& call) {
  if (engines_.size() > 1 && random_() % kCallsPerRelocation == 0) relocate_some(now);
  call();
  while (!said_.empty()) {
    const auto next = std::move(said_.front());
    said_.pop_front();
    next(now);
  }
}

void Engines::at(const PortId& port, Instant now, const std::function<void(wire::Engine&)>& call) {
  served(now, [&] { call(of(port)); });
}

void Engines::relocate(const wire::ShardMap::Relocation& relocation, Instant now) {
  map_.relocated(relocation);
  const auto unit = engines_[relocation.from]->take(relocation.ports, now);
  if (relocation.to != 0) engines_.front()->indices_moved(unit->indices(), relocation.to);
  engines_[relocation.to]->adopt(*unit, now);
}

void Engines::relocate_some(Instant now) {
  const auto ports = map_.ports();
  if (ports.empty()) return;
  const PortId port = ports[random_() % ports.size()];
  const auto to = static_cast<std::uint16_t>(random_() % engines_.size());
  const auto from = map_.of(port).value_or(0);
  if (from != to) relocate({.ports = map_.unit_of(port), .from = from, .to = to}, now);
}

// ---- to all of them, or by what it says ----

void Engines::session_up(const std::string& peer, std::span<const std::byte, 32> secret,
                         bool is_initiator, std::span<const wire::PeerAddress> addresses,
                         Instant now) {
  served(now, [&] {
    for (const auto& engine : engines_)
      engine->session_up(peer, secret, is_initiator, addresses, now);
  });
}

void Engines::session_down(const std::string& peer, Instant now) {
  served(now, [&] {
    for (const auto& engine : engines_) engine->session_down(peer, now);
  });
}

void Engines::control(const std::string& peer, BytesView message, Instant now) {
  served(now, [&] {
    for (const auto shard : map_.takers(message)) engines_[shard]->control(peer, message, now);
  });
}

void Engines::datagrams(const wire::PeerAddress& from, MutableBytes run, std::uint16_t segment_size,
                        Instant now) {
  served(now, [&] { engines_.front()->datagrams(from, run, segment_size, now); });
}

void Engines::tick(Instant now) {
  served(now, [&] {
    for (const auto& engine : engines_) {
      if (engine->next_tick() <= now) engine->tick(now);
    }
  });
}

Instant Engines::next_tick() const {
  Instant due = Instant::max();
  for (const auto& engine : engines_) due = std::min(due, engine->next_tick());
  return due;
}

std::string Engines::overlooked() const {
  for (const auto& engine : engines_) {
    if (auto who = engine->overlooked(); !who.empty()) return who;
  }
  return {};
}

void Engines::disconnect(const WireId& wire, Instant now) {
  served(now, [&] {
    for (const auto& engine : engines_) engine->disconnect(wire, now);
  });
}

// ---- of a port ----

void Engines::frames_from_port(const PortId& port, std::span<const BytesView> frames, Instant now) {
  at(port, now, [&](wire::Engine& engine) { engine.frames_from_port(port, frames, now); });
}

void Engines::add_port(const wire::PortConfig& config, Instant now) {
  map_.add(config.id, static_cast<std::uint16_t>(random_() % engines_.size()));
  at(config.id, now, [&](wire::Engine& engine) { engine.add_port(config, now); });
}

void Engines::remove_port(const PortId& port, Instant now) {
  at(port, now, [&](wire::Engine& engine) { engine.remove_port(port, now); });
  map_.erase(port);
}

void Engines::connect(const wire::WireConfig& wire, Instant now) {
  if (const auto first = map_.join(wire.local, wire.remote)) relocate(*first, now);
  at(wire.local, now, [&](wire::Engine& engine) { engine.connect(wire, now); });
}

void Engines::offer_move(const PortId& port, const std::string& to_host, Epoch new_epoch,
                         Instant now) {
  at(port, now, [&](wire::Engine& engine) { engine.offer_move(port, to_host, new_epoch, now); });
}

void Engines::pause(const PortId& port, std::span<const BytesView> undelivered, Instant now) {
  at(port, now, [&](wire::Engine& engine) { engine.pause(port, undelivered, now); });
}

void Engines::resume(const PortId& port, Instant now) {
  at(port, now, [&](wire::Engine& engine) { engine.resume(port, now); });
}

void Engines::release(const PortId& port, Instant now) {
  at(port, now, [&](wire::Engine& engine) { engine.release(port, now); });
}

void Engines::drop_live(const wire::PortEpoch& id, Instant now) {
  at(id.port, now, [&](wire::Engine& engine) { engine.drop_live(id, now); });
}

void Engines::prepare(const wire::PortConfig& config, const std::string& from_host,
                      std::span<const wire::WireConfig> wires, Instant now) {
  map_.add(config.id, static_cast<std::uint16_t>(random_() % engines_.size()));
  for (const wire::WireConfig& wire : wires) {
    if (const auto first = map_.join(wire.local, wire.remote)) relocate(*first, now);
  }
  at(config.id, now, [&](wire::Engine& engine) { engine.prepare(config, from_host, wires, now); });
}

void Engines::run(const PortId& port, Instant now) {
  at(port, now, [&](wire::Engine& engine) { engine.run(port, now); });
}

void Engines::discard(const PortId& port, Instant now) {
  at(port, now, [&](wire::Engine& engine) { engine.discard(port, now); });
}

// ---- reports ----

std::vector<wire::WireStats> Engines::wire_stats() const {
  std::vector<wire::WireStats> all;
  for (const auto& engine : engines_)
    std::ranges::copy(engine->wire_stats(), std::back_inserter(all));
  return all;
}

std::vector<wire::PortStats> Engines::port_stats() const {
  std::vector<wire::PortStats> all;
  for (const auto& engine : engines_)
    std::ranges::copy(engine->port_stats(), std::back_inserter(all));
  return all;
}

std::optional<wire::PortStats> Engines::port_stats(const PortId& port) const {
  return of(port).port_stats(port);
}

std::optional<Epoch> Engines::live_epoch(const PortId& port) const {
  return of(port).live_epoch(port);
}

}  // namespace godwit::sim
