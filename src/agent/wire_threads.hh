#pragma once
// The wire threads of this host, which look like one (wire_thread.hh): what they are told goes to
// the thread that has the port or component, and what they say is put together. With one thread
// that is all. Lives in the control thread.
//
// What is joined begins in one thread, the first. When that has too much to do, ports and
// components go to others (wire_balance.hh) while they carry frames, of which none is lost,
// doubled or overtaken on this host.
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "agent/wire_balance.hh"
#include "agent/wire_thread.hh"
#include "wire/shard_map.hh"

namespace godwit::agent {

// Of sessions: peers take keys of several shards (docs/protocol/wire-move.md).
inline constexpr unsigned kShardProtocol = 14;

class WireThreads final {
 public:
  using Stats = WireThread::Stats;
  using PortCounters = WireThread::PortCounters;

  WireThreads(os::Loop& control, const std::string& self, const wire::Limits& limits,
              WireThread::Handlers handlers, std::size_t threads = 1);
  ~WireThreads();

  std::size_t size() const { return threads_.size(); }
  std::vector<Nanoseconds> cpu_times() const;  // that each has taken

  // As those of WireThread.
  void use_socket(const std::shared_ptr<os::UdpSocket>& socket);
  // Of a session `protocol` below kShardProtocol a peer takes keys of one shard only: while there
  // is one, the first thread has all ports.
  void session_up(const std::string& peer, const std::array<std::byte, 32>& secret,
                  bool is_initiator, const std::vector<wire::PeerAddress>& addresses,
                  unsigned protocol);
  void session_down(const std::string& peer);
  void use_addresses(std::vector<wire::PeerAddress> addresses);
  void addresses_changed();
  void control(const std::string& peer, const Bytes& message);
  void add_port(const wire::PortConfig& config);
  void remove_port(const PortId& port);
  void attach(const PortId& port, PortDevice device);
  void detach(const PortId& port);
  void connect(const wire::WireConfig& wire);
  void disconnect(const WireId& wire);
  void offer_move(const PortId& port, const std::string& to_host, Epoch epoch);
  void arm(const std::vector<PortId>& ports, std::function<void()> done);
  void plug(const std::vector<PortId>& ports, std::function<void()> done);
  void pause(const std::vector<PortId>& ports, std::vector<Bytes> newest,
             std::function<void()> done);
  void resume(const std::vector<PortId>& ports);
  void release(const wire::PortEpoch& id);
  void prepare(const wire::PortConfig& config, const std::string& from,
               const std::vector<wire::WireConfig>& wires);
  void run(const std::vector<PortId>& ports);
  void run(const PortId& port, PortDevice device);
  void discard(const PortId& port);
  void place(const ComponentId& id, std::unique_ptr<net::Component> component,
             const std::map<net::PortIndex, PortId>& ports);
  void remove_component(const ComponentId& id);
  void port_counters(std::function<void(const PortCounters&)> done);
  void with_component(const ComponentId& id,
                      std::move_only_function<void(net::Component&, Instant now)> work,
                      std::move_only_function<void()> done);
  void stats(std::function<void(const Stats&)> done);
  void stats_and_losses(std::function<void(const Stats&)> done);

 private:
  struct Home {  // of a component
    std::uint16_t thread = 0;
    std::map<net::PortIndex, PortId> ports;
  };
  using Relocation = wire::ShardMap::Relocation;
  using Ask = void (WireThread::*)(std::function<void(const Stats&)>);

  WireThread& thread_of(const PortId& port) { return *threads_[shard_of(port)]; }
  WireThread& thread_of(const ComponentId& id);
  std::uint16_t shard_of(const PortId& port) const;
  WireThread& first_of(const std::vector<PortId>& ports);
  void note_port(const PortId& port);
  void gather(const std::vector<PortId>& ports);
  void relocate(const Relocation& relocation, const std::vector<ComponentId>& components);
  WireThread::Ways ways_of(const std::vector<PortId>& ports) const;
  void tell_ways(const WireThread::Ways& ways);
  void ask(Ask what, std::function<void(const Stats&)> done);

  void bring_home();

  void watch_load();
  void balance(const Stats& stats, const std::vector<double>& busy);
  std::vector<WireLoad> loads(const Stats& stats);
  void shift(const WireShift& shift, const std::vector<WireLoad>& loads);
  void storm();

  os::Loop& control_;
  std::vector<std::unique_ptr<WireThread>> threads_;
  wire::ShardMap map_;
  std::map<ComponentId, Home> homes_;
  std::map<PortId, ComponentId> component_of_;
  std::set<std::string> old_peers_;  // with a session
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);

  os::Loop::Timer timer_;
  std::uint64_t looks_ = 0;
  std::vector<Nanoseconds> used_;  // working time of each thread when it was looked at last
  Instant looked_{};
  std::map<PortId, std::uint64_t> carried_;  // work of each port until then
};

}  // namespace godwit::agent
