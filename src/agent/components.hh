#pragma once
// The components of this host as the operator sees them: their records, their ports in the
// Network, what they count. They themselves are in the wire thread (net/component.hh).
// Control thread.
#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <vector>

#include "agent/config.hh"
#include "agent/events.hh"
#include "agent/network.hh"
#include "agent/wire_threads.hh"
#include "fabric/component.hh"
#include "store/store.hh"

namespace godwit::agent {

inline constexpr std::size_t kMostComponents = 256;  // of a host

class Components final {
 public:
  Components(os::Loop& loop, const Config& config, store::Store& store, Network& network,
             WireThreads& wires, Events& events);

  // After the Network has opened their ports. Those that `left` may run elsewhere, and do not here.
  void start(const std::set<ComponentId>& left);

  // See fabric::new_component() and fabric::changed(). What is there already as it is asked for
  // stays.
  Result<nlohmann::json> add(const nlohmann::json& request);
  Result<nlohmann::json> set(const std::string& name, const nlohmann::json& request);
  // Not while a port of it has a wire. Harmless where there is none.
  Result<> remove(const std::string& name);
  // As they are recorded.
  std::vector<nlohmann::json> list() const;
  std::optional<nlohmann::json> show(const std::string& name) const;
  // With what it has counted.
  void show(const std::string& name, std::function<void(nlohmann::json)> done);

  // Moves, at the source. Null: there is none.
  const fabric::ComponentRecord* find(const std::string& name) const;
  const fabric::ComponentRecord* find(const ComponentId& id) const;
  // See net::Component. take_state() goes on with what was taken: one message of about kStateBytes,
  // or all that there is.
  void begin_state(const ComponentId& id);
  // Of a message: half a millisecond of the wire thread.
  static constexpr std::size_t kStateBytes = 128 << 10;
  enum class Take : std::uint8_t { some, all };
  struct Taken {
    std::vector<Bytes> messages{};
    double left_bytes = 0;  // about: of things as long as these
  };
  void take_state(const ComponentId& id, Take take, std::function<void(Taken)> done);
  void end_state(const ComponentId& id);
  // It goes on here, from what is kept of it if it left the wire thread.
  void resume(const ComponentId& id);
  // It is no longer here. Harmless if there is none.
  void moved_away(const ComponentId& id);
  // At the target. Whether there is a place for it, and keeping it.
  Result<> may_arrive(const fabric::ComponentRecord& record) const;
  Result<> expect(const fabric::ComponentRecord& record);
  void expect_no_more(const fabric::ComponentRecord& record);
  // As place() makes it, not placed.
  std::unique_ptr<net::Component> make(const fabric::ComponentRecord& record) const;
  // It was expected: it is of this host now, and in the wire thread. Harmless if it is already.
  void arrive(const fabric::ComponentRecord& record, std::unique_ptr<net::Component> component);

  // [{component, tenant, port, rx_frames, ...}] of all, for metrics.
  void port_counters(std::function<void(nlohmann::json)> done);
  // A list of what it knows, of those that its type has: "macs". Empty: there is no such list.
  std::vector<std::string_view> tables(const std::string& name) const;
  void table(const std::string& name, const std::string& which,
             std::function<void(nlohmann::json)> done);

 private:
  using ComponentRecord = fabric::ComponentRecord;
  using ComponentPort = fabric::ComponentPort;
  Result<> make_ports(ComponentRecord& record, const std::string& topology,
                      std::vector<PortId>& made);
  void remove_ports(const std::vector<PortId>& ports);
  void remove_strays();
  void place(const ComponentRecord& record);
  void forget(const ComponentRecord& record);
  void keep_states();
  void keep_state(const ComponentRecord& record);
  void publish(const ComponentRecord& record, const char* event);
  std::string called(const ComponentRecord& record, const ComponentPort& port) const;

  os::Loop& loop_;
  const Config& config_;
  store::Store& store_;
  Network& network_;
  WireThreads& wires_;
  Events& events_;
  std::map<std::string, ComponentRecord> components_;
  std::set<ComponentId> away_;  // not in the wire thread
  std::map<std::string, ComponentId> expected_;
  std::map<ComponentId, std::uint64_t> kept_changes_;  // of the states that are in the store
  os::Loop::Timer keep_timer_;
};

}  // namespace godwit::agent
