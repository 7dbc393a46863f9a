#include "agent/wire_threads.hh"

#include <algorithm>
#include <array>
#include <iterator>
#include <latch>

#include "os/random.hh"

namespace godwit::agent {
namespace {

// A function that calls `done` when it was called so many times.
std::function<void()> after_calls(std::size_t calls, std::function<void()> done) {
  return [left = std::make_shared<std::size_t>(calls), done = std::move(done)] {
    if (--*left == 0) done();
  };
}

void add(WireThread::Stats& sum, const WireThread::Stats& more) {
  std::ranges::copy(more.wires, std::back_inserter(sum.wires));
  std::ranges::copy(more.ports, std::back_inserter(sum.ports));
  std::ranges::copy(more.peers, std::back_inserter(sum.peers));
  sum.relayed.datagrams += more.relayed.datagrams;
  sum.relayed.bytes += more.relayed.bytes;
  sum.relayed.refused_source += more.relayed.refused_source;
  sum.relayed.refused_target += more.relayed.refused_target;
  sum.relayed.refused_rate += more.relayed.refused_rate;
  sum.stray_datagrams += more.stray_datagrams;
  sum.bad_control += more.bad_control;
  sum.tap_refused += more.tap_refused;
  sum.looped += more.looped;
  sum.udp_overflowed += more.udp_overflowed;
  sum.udp_dropped += more.udp_dropped;
  sum.relay_dropped += more.relay_dropped;
  sum.crossing_dropped += more.crossing_dropped;
}

}  // namespace

WireThreads::WireThreads(os::Loop& control, const std::string& self, const wire::Limits& limits,
                         WireThread::Handlers handlers, std::size_t threads)
    : control_(control) {
  std::array<std::byte, 2> tag{};
  os::fill_random(tag);
  const auto count = static_cast<std::uint16_t>(threads);
  std::vector<WireThread*> all;
  for (std::uint16_t i = 0; i < count; ++i) {
    const wire::Shard shard{
        .index = i, .count = count, .tag = from_big_endian<std::uint16_t>(tag.data())};
    threads_.push_back(std::make_unique<WireThread>(control, self, limits, handlers, shard));
    all.push_back(threads_.back().get());
  }
  for (WireThread* thread : all) thread->meet(all);
  if (count > 1) watch_load();
}

// None may be told anything by another one when it is gone.
WireThreads::~WireThreads() {
  for (const auto& thread : threads_) thread->end();
}

// ---- whose it is ----

std::uint16_t WireThreads::shard_of(const PortId& port) const { return map_.of(port).value_or(0); }

WireThread& WireThreads::thread_of(const ComponentId& id) {
  const auto home = homes_.find(id);
  return *threads_[home == homes_.end() ? 0 : home->second.thread];
}

WireThread& WireThreads::first_of(const std::vector<PortId>& ports) {
  return ports.empty() ? *threads_.front() : thread_of(ports.front());
}

// ---- to all of them, or the first ----

void WireThreads::use_socket(const std::shared_ptr<os::UdpSocket>& socket) {
  for (const auto& thread : threads_) {
    const bool receives = thread == threads_.front();
    thread->use_socket(receives ? socket : socket->for_another_thread(), receives);
  }
}

void WireThreads::session_up(const std::string& peer, const std::array<std::byte, 32>& secret,
                             bool is_initiator, const std::vector<wire::PeerAddress>& addresses,
                             unsigned protocol) {
  if (protocol < kShardProtocol) {
    old_peers_.insert(peer);
    bring_home();
  } else {
    old_peers_.erase(peer);
  }
  for (const auto& thread : threads_) thread->session_up(peer, secret, is_initiator, addresses);
}

void WireThreads::session_down(const std::string& peer) {
  old_peers_.erase(peer);
  for (const auto& thread : threads_) thread->session_down(peer);
}

void WireThreads::use_addresses(std::vector<wire::PeerAddress> addresses) {
  threads_.front()->use_addresses(std::move(addresses));
}

void WireThreads::addresses_changed() { threads_.front()->addresses_changed(); }

void WireThreads::control(const std::string& peer, const Bytes& message) {
  if (size() == 1) return threads_.front()->control(peer, message);
  for (const std::uint16_t shard : map_.takers(message)) threads_[shard]->control(peer, message);
}

void WireThreads::disconnect(const WireId& wire) {
  for (const auto& thread : threads_) thread->disconnect(wire);
}

// ---- ports ----

void WireThreads::note_port(const PortId& port) {
  if (size() == 1) return;
  const auto component = component_of_.find(port);
  map_.add(port, component == component_of_.end() ? 0 : homes_.at(component->second).thread);
}

void WireThreads::add_port(const wire::PortConfig& config) {
  note_port(config.id);
  thread_of(config.id).add_port(config);
}

void WireThreads::remove_port(const PortId& port) {
  thread_of(port).remove_port(port);
  map_.erase(port);
  carried_.erase(port);
}

void WireThreads::attach(const PortId& port, PortDevice device) {
  thread_of(port).attach(port, std::move(device));
}

void WireThreads::detach(const PortId& port) { thread_of(port).detach(port); }

void WireThreads::connect(const wire::WireConfig& wire) {
  if (const auto first = map_.join(wire.local, wire.remote)) relocate(*first, {});
  thread_of(wire.local).connect(wire);
}

void WireThreads::offer_move(const PortId& port, const std::string& to_host, Epoch epoch) {
  thread_of(port).offer_move(port, to_host, epoch);
}

void WireThreads::arm(const std::vector<PortId>& ports, std::function<void()> done) {
  gather(ports);
  first_of(ports).arm(ports, std::move(done));
}

void WireThreads::plug(const std::vector<PortId>& ports, std::function<void()> done) {
  gather(ports);
  first_of(ports).plug(ports, std::move(done));
}

void WireThreads::pause(const std::vector<PortId>& ports, std::vector<Bytes> newest,
                        std::function<void()> done) {
  gather(ports);
  first_of(ports).pause(ports, std::move(newest), std::move(done));
}

void WireThreads::resume(const std::vector<PortId>& ports) {
  gather(ports);
  first_of(ports).resume(ports);
}

void WireThreads::release(const wire::PortEpoch& id) { thread_of(id.port).release(id); }

void WireThreads::prepare(const wire::PortConfig& config, const std::string& from,
                          const std::vector<wire::WireConfig>& wires) {
  note_port(config.id);
  for (const wire::WireConfig& wire : wires) {
    if (const auto first = map_.join(wire.local, wire.remote)) relocate(*first, {});
  }
  thread_of(config.id).prepare(config, from, wires);
}

void WireThreads::run(const std::vector<PortId>& ports) {
  gather(ports);
  first_of(ports).run(ports);
}

void WireThreads::run(const PortId& port, PortDevice device) {
  thread_of(port).run(port, std::move(device));
}

void WireThreads::discard(const PortId& port) { thread_of(port).discard(port); }

// ---- components ----

void WireThreads::place(const ComponentId& id, std::unique_ptr<net::Component> component,
                        const std::map<net::PortIndex, PortId>& ports) {
  const auto [home, is_new] = homes_.try_emplace(id);
  if (is_new && !ports.empty()) home->second.thread = shard_of(ports.begin()->second);
  std::erase_if(component_of_, [&](const auto& each) { return each.second == id; });
  std::vector<PortId> all;
  for (const auto& [index, port] : home->second.ports) all.push_back(port);
  home->second.ports = ports;
  for (const auto& [index, port] : ports) {
    component_of_[port] = id;
    all.push_back(port);
  }
  threads_[home->second.thread]->place(id, std::move(component), ports);
  tell_ways(ways_of(all));
}

void WireThreads::remove_component(const ComponentId& id) {
  thread_of(id).remove_component(id);
  const auto home = homes_.extract(id);
  std::erase_if(component_of_, [&](const auto& each) { return each.second == id; });
  if (home.empty()) return;
  std::vector<PortId> all;
  for (const auto& [index, port] : home.mapped().ports) all.push_back(port);
  tell_ways(ways_of(all));
}

void WireThreads::port_counters(std::function<void(const PortCounters&)> done) {
  const auto sum = std::make_shared<PortCounters>();
  const auto one_done = after_calls(size(), [sum, done = std::move(done)] { done(*sum); });
  for (const auto& thread : threads_) {
    thread->port_counters([sum, one_done](const PortCounters& some) {
      sum->insert(some.begin(), some.end());
      one_done();
    });
  }
}

void WireThreads::with_component(const ComponentId& id,
                                 std::move_only_function<void(net::Component&, Instant)> work,
                                 std::move_only_function<void()> done) {
  thread_of(id).with_component(id, std::move(work), std::move(done));
}

// ---- reports ----

void WireThreads::ask(Ask what, std::function<void(const Stats&)> done) {
  const auto sum = std::make_shared<Stats>();
  const auto one_done = after_calls(size(), [sum, done = std::move(done)] { done(*sum); });
  for (const auto& thread : threads_) {
    (thread.get()->*what)([sum, one_done](const Stats& some) {
      add(*sum, some);
      one_done();
    });
  }
}

void WireThreads::stats(std::function<void(const Stats&)> done) {
  ask(&WireThread::stats, std::move(done));
}

void WireThreads::stats_and_losses(std::function<void(const Stats&)> done) {
  ask(&WireThread::stats_and_losses, std::move(done));
}

std::vector<Nanoseconds> WireThreads::cpu_times() const {
  std::vector<Nanoseconds> all;
  for (const auto& thread : threads_) all.push_back(thread->cpu_time());
  return all;
}

// ---- from thread to thread ----

// Of ports that are the same in both threads nothing has to cross.
WireThread::Ways WireThreads::ways_of(const std::vector<PortId>& ports) const {
  WireThread::Ways ways;
  for (const PortId& port : ports) {
    const std::uint16_t thread = shard_of(port);
    const auto component = component_of_.find(port);
    const bool is_components = component != component_of_.end();
    ways[port] = {.port = thread,
                  .component = is_components ? homes_.at(component->second).thread : thread};
  }
  return ways;
}

void WireThreads::tell_ways(const WireThread::Ways& ways) {
  if (size() == 1 || ways.empty()) return;
  for (const auto& thread : threads_) thread->use_ways(ways);
}

// The control thread waits for the others here, each of which ends what it is at: so all that was
// told to the one that gives is done before, and all that is told to the one that takes comes
// after. Others keep meanwhile what they have for what moves, or it would be overtaken. (Only what
// the giver could not send yet, as UDP had no room, may be.)
void WireThreads::relocate(const Relocation& relocation,
                           const std::vector<ComponentId>& components) {
  std::vector<PortId> touched = relocation.ports;
  for (const ComponentId& id : components) {
    homes_.at(id).thread = relocation.to;
    for (const auto& [index, port] : homes_.at(id).ports) touched.push_back(port);
  }
  map_.relocated(relocation);
  const WireThread::Ways ways = ways_of(touched);
  std::latch held(std::ssize(threads_) - 1);
  for (std::uint16_t i = 0; i < size(); ++i) {
    if (i != relocation.from) threads_[i]->hold(ways, [&held] { held.count_down(); });
  }
  held.wait();
  std::latch gone(1);
  threads_[relocation.from]->hand_on(relocation.ports, components, relocation.to, ways,
                                     [&gone] { gone.count_down(); });
  gone.wait();
  for (std::uint16_t i = 0; i < size(); ++i) {
    if (i != relocation.from) threads_[i]->use_ways(ways);
  }
}

void WireThreads::bring_home() {
  for (std::uint16_t from = 1; from < size(); ++from) {
    Relocation relocation{.ports = {}, .from = from, .to = 0};
    for (const PortId& port : map_.ports()) {
      if (shard_of(port) == from) relocation.ports.push_back(port);
    }
    std::vector<ComponentId> components;
    for (const auto& [id, home] : homes_) {
      if (home.thread == from) components.push_back(id);
    }
    if (!relocation.ports.empty() || !components.empty()) relocate(relocation, components);
  }
}

// What begins or ends together, in one turn, has to be in one thread, with the component: else what
// is on its way between threads would come to a port that does not take it any more, or not yet.
void WireThreads::gather(const std::vector<PortId>& ports) {
  if (size() == 1 || ports.empty()) return;
  const std::uint16_t to = shard_of(ports.front());
  std::map<std::uint16_t, std::pair<std::set<PortId>, std::set<ComponentId>>> elsewhere;
  for (const PortId& port : ports) {
    if (const auto shard = map_.of(port); shard && *shard != to) {  // else it was removed
      const auto unit = map_.unit_of(port);
      elsewhere[*shard].first.insert(unit.begin(), unit.end());
    }
    const auto component = component_of_.find(port);
    if (component == component_of_.end()) continue;
    if (const auto shard = homes_.at(component->second).thread; shard != to) {
      elsewhere[shard].second.insert(component->second);
    }
  }
  for (const auto& [shard, what] : elsewhere) {
    relocate({.ports = {what.first.begin(), what.first.end()}, .from = shard, .to = to},
             {what.second.begin(), what.second.end()});
  }
}

}  // namespace godwit::agent
