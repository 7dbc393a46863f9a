#include "agent/components.hh"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "os/random.hh"
#include "os/wall_clock.hh"
#include "qemu/json.hh"

namespace godwit::agent {
namespace {

using nlohmann::json;

constexpr const char* kKind = "component";
constexpr const char* kStateKind = "component-state";  // {saved_at, state}, by name
constexpr Nanoseconds kKeepInterval = seconds(1);

std::uint64_t secret_number() {
  std::array<std::byte, 8> bytes{};
  os::fill_random(bytes);
  return from_big_endian<std::uint64_t>(bytes.data());
}

json to_json(const net::PortCounters& counters) {
  json drops = json::object();
  for (const auto& [cause, count] : counters.drops) drops[std::string(cause)] = count;
  return {{"rx_frames", counters.rx_frames},
          {"rx_bytes", counters.rx_bytes},
          {"tx_frames", counters.tx_frames},
          {"tx_bytes", counters.tx_bytes},
          {"drops", drops}};
}

std::map<net::PortIndex, PortId> ports_of(const fabric::ComponentRecord& record) {
  std::map<net::PortIndex, PortId> ports;
  for (const fabric::ComponentPort& port : record.ports) ports[port.index] = port.id;
  return ports;
}

// What the operator said of it.
json without_ids(const fabric::ComponentRecord& record) {
  json object = fabric::to_json(record);
  object.erase("id");
  object.erase("topology");
  for (json& port : object["ports"]) port.erase("id");
  return object;
}

}  // namespace

Components::Components(os::Loop& loop, const Config& config, store::Store& store, Network& network,
                       WireThreads& wires, Events& events)
    : loop_(loop),
      config_(config),
      store_(store),
      network_(network),
      wires_(wires),
      events_(events) {}

void Components::start(const std::set<ComponentId>& left) {
  for (const auto& document : store_.list(kKind)) {
    const auto record = fabric::component_record(document.body);
    if (!record) {
      fail_setup("the agent's store holds a damaged record: a component: {}", record.error().text);
    }
    components_[record->name] = *record;
    if (left.contains(record->id)) {
      away_.insert(record->id);
    } else {
      place(*record);
    }
  }
  remove_strays();
  keep_states();
}

// An agent that was killed while it added a component has made ports that nobody knows.
void Components::remove_strays() {
  std::vector<PortId> strays = network_.component_ports();
  std::erase_if(strays, [this](const PortId& port) {
    return std::ranges::any_of(components_, [&](const auto& each) {
      return std::ranges::find(each.second.ports, port, &ComponentPort::id) !=
             each.second.ports.end();
    });
  });
  remove_ports(strays);
}

std::string Components::called(const ComponentRecord& record, const ComponentPort& port) const {
  return fmt::format("{}-{}", record.name, port.name);
}

void Components::publish(const ComponentRecord& record, const char* event) {
  events_.publish("component",
                  {{"name", record.name}, {"tenant", record.tenant}, {"event", event}});
}

std::unique_ptr<net::Component> Components::make(const ComponentRecord& record) const {
  return record.settings->make(record.places(), secret_number());
}

// New in the wire thread, with what was kept of it.
void Components::place(const ComponentRecord& record) {
  auto component = make(record);
  if (const auto kept = store_.find(kStateKind, record.name)) {
    const auto saved_at = seconds(qemu::unsigned_at(*kept, "saved_at"));
    const auto age = std::max(seconds(os::wall_clock_seconds()) - saved_at, seconds(0));
    record.settings->restore(*component, qemu::member(*kept, "state"), loop_.now() - age);
  }
  wires_.place(record.id, std::move(component), ports_of(record));
}

// Once a second what has changed: a server that is killed before has forgotten a lease that its
// client has, and takes the client at its word (net/dhcp_server.cc).
void Components::keep_states() {
  for (const auto& [name, record] : components_) {
    if (record.settings->has_state()) keep_state(record);
  }
  keep_timer_ = loop_.after(kKeepInterval, [this] { keep_states(); });
}

void Components::keep_state(const ComponentRecord& record) {
  struct Found {
    std::uint64_t changes = 0;
    json state{};
  };
  const auto found = std::make_shared<Found>();
  wires_.with_component(
      record.id,
      [found, settings = record.settings, kept = kept_changes_[record.id]](
          net::Component& component, Instant now) {
        found->changes = settings->changes(component);
        if (found->changes != kept) found->state = settings->state(component, now);
      },
      [this, found, id = record.id, name = record.name] {
        const auto still = components_.find(name);
        if (found->state.is_null() || still == components_.end() || still->second.id != id) return;
        const auto done = store_.record(
            kStateKind, name,
            {{"saved_at", os::wall_clock_seconds()}, {"state", std::move(found->state)}});
        if (done) kept_changes_[id] = found->changes;
        if (!done) spdlog::error("component {}: {}", name, done.error().text);
      });
}

Result<> Components::make_ports(ComponentRecord& record, const std::string& topology,
                                std::vector<PortId>& made) {
  for (ComponentPort& port : record.ports) {
    if (!port.id.is_zero()) continue;
    const auto added =
        network_.add_component_port(called(record, port), record.tenant, record.name, topology);
    if (!added) return std::unexpected(added.error());
    port.id = added->id;
    made.push_back(port.id);
  }
  return {};
}

void Components::remove_ports(const std::vector<PortId>& ports) {
  for (const PortId& port : ports) {
    if (auto done = network_.remove_component_port(port); !done) {
      spdlog::error("{}", done.error().text);
    }
  }
}

Result<json> Components::add(const json& request) {
  auto record = fabric::new_component(request);
  if (!record) return std::unexpected(record.error());
  if (const auto found = components_.find(record->name); found != components_.end()) {
    if (without_ids(found->second) == without_ids(*record)) return to_json(found->second);
    return fail("there is another component '{0}' on host {1}: godwit component set {0}",
                record->name, config_.name);
  }
  if (const auto may = may_arrive(*record); !may) return std::unexpected(may.error());
  record->id = os::random_id<ComponentId>();
  std::vector<PortId> made;
  auto done = make_ports(*record, record->topology, made);
  if (done) done = store_.record(kKind, record->name, to_json(*record));
  if (!done) {
    remove_ports(made);
    return std::unexpected(done.error());
  }
  components_[record->name] = *record;
  place(*record);
  publish(*record, "added");
  return to_json(*record);
}

// Its new ports first, which are removed again if it is not recorded; the old ones last.
Result<json> Components::set(const std::string& name, const json& request) {
  const auto found = components_.find(name);
  if (found == components_.end()) {
    return fail("there is no component '{}' on host {}", name, config_.name);
  }
  const ComponentRecord before = found->second;
  auto record = fabric::changed(before, request);
  if (!record) return std::unexpected(record.error());
  std::vector<PortId> gone, made;
  for (const ComponentPort& port : before.ports) {
    if (record->port(port.name) != nullptr) continue;
    if (network_.has_wire(port.id)) {
      return fail("port {} has a wire: disconnect it first", called(before, port));
    }
    gone.push_back(port.id);
  }
  auto done = make_ports(*record, text_field_or(request, "topology", ""), made);
  if (done) done = store_.record(kKind, name, to_json(*record));
  if (!done) {
    remove_ports(made);
    return std::unexpected(done.error());
  }
  found->second = *record;
  wires_.with_component(
      record->id,
      [settings = record->settings, places = record->places()](net::Component& component, Instant) {
        settings->configure(component, places);
      },
      [] {});
  wires_.place(record->id, nullptr, ports_of(*record));
  remove_ports(gone);
  publish(*record, "changed");
  return to_json(*record);
}

Result<> Components::remove(const std::string& name) {
  const auto found = components_.find(name);
  if (found == components_.end()) return {};
  const ComponentRecord record = found->second;
  std::vector<PortId> ports;
  for (const ComponentPort& port : record.ports) {
    if (network_.has_wire(port.id)) {
      return fail("port {} has a wire: disconnect it first", called(record, port));
    }
    ports.push_back(port.id);
  }
  forget(record);
  remove_ports(ports);
  publish(record, "removed");
  return {};
}

// ---- for migrations ----

const fabric::ComponentRecord* Components::find(const std::string& name) const {
  const auto found = components_.find(name);
  return found == components_.end() ? nullptr : &found->second;
}

const fabric::ComponentRecord* Components::find(const ComponentId& id) const {
  const auto found =
      std::ranges::find_if(components_, [&](const auto& each) { return each.second.id == id; });
  return found == components_.end() ? nullptr : &found->second;
}

void Components::begin_state(const ComponentId& id) {
  wires_.with_component(
      id, [](net::Component& component, Instant) { component.begin_state(); }, [] {});
}

void Components::take_state(const ComponentId& id, Take take, std::function<void(Taken)> done) {
  const auto taken = std::make_shared<Taken>();
  wires_.with_component(
      id,
      [taken, take](net::Component& component, Instant now) {
        do {
          const std::size_t before = component.untold();
          Bytes some = component.take_state(kStateBytes, now);
          const std::size_t left = component.untold();
          if (some.empty()) return;
          const auto told = static_cast<double>(before > left ? before - left : 1);
          taken->left_bytes = static_cast<double>(left) * static_cast<double>(some.size()) / told;
          taken->messages.push_back(std::move(some));
        } while (take == Take::all);
      },
      [taken, done = std::move(done)] { done(std::move(*taken)); });
}

void Components::end_state(const ComponentId& id) {
  wires_.with_component(
      id, [](net::Component& component, Instant) { component.end_state(); }, [] {});
}

void Components::resume(const ComponentId& id) {
  if (away_.erase(id) == 0) return;
  if (const ComponentRecord* record = find(id)) place(*record);
}

void Components::moved_away(const ComponentId& id) {
  const ComponentRecord* found = find(id);
  if (found == nullptr) return;
  const ComponentRecord record = *found;
  forget(record);
  publish(record, "left");
}

void Components::forget(const ComponentRecord& record) {
  components_.erase(record.name);
  store_.erase(kKind, record.name);
  store_.erase(kStateKind, record.name);
  kept_changes_.erase(record.id);
  away_.erase(record.id);
  wires_.remove_component(record.id);
}

Result<> Components::may_arrive(const ComponentRecord& record) const {
  if (components_.contains(record.name) || expected_.contains(record.name)) {
    return fail("host {} has a component '{}' already", config_.name, record.name);
  }
  if (components_.size() + expected_.size() >= kMostComponents) {
    return fail("host {} has {} components, which is the most", config_.name, kMostComponents);
  }
  return {};
}

Result<> Components::expect(const ComponentRecord& record) {
  if (auto may = may_arrive(record); !may) return may;
  expected_[record.name] = record.id;
  return {};
}

void Components::expect_no_more(const ComponentRecord& record) {
  const auto found = expected_.find(record.name);
  if (found != expected_.end() && found->second == record.id) expected_.erase(found);
}

void Components::arrive(const ComponentRecord& record, std::unique_ptr<net::Component> component) {
  expect_no_more(record);
  if (find(record.id) != nullptr) return;
  store_.put(kKind, record.name, to_json(record));
  components_[record.name] = record;
  wires_.place(record.id, std::move(component), ports_of(record));
  publish(record, "arrived");
}

// ---- what is shown ----

std::vector<json> Components::list() const {
  std::vector<json> all;
  for (const auto& [name, record] : components_) all.push_back(to_json(record));
  return all;
}

std::optional<json> Components::show(const std::string& name) const {
  const auto found = components_.find(name);
  return found == components_.end() ? std::nullopt : std::optional(to_json(found->second));
}

void Components::show(const std::string& name, std::function<void(json)> done) {
  const ComponentRecord& record = components_.at(name);
  const auto shown = std::make_shared<json>(to_json(record));
  wires_.with_component(
      record.id,
      [shown, settings = record.settings](net::Component& component, Instant) {
        const auto counters = component.counters();
        for (json& port : (*shown)["ports"]) {
          const auto index = port["index"].get<std::size_t>();
          if (index < counters.size()) port.update(to_json(counters[index]));
        }
        shown->update(settings->describe(component));
      },
      [shown, done = std::move(done)] { done(*shown); });
}

void Components::port_counters(std::function<void(json)> done) {
  wires_.port_counters([this, done = std::move(done)](const WireThreads::PortCounters& counters) {
    json all = json::array();
    for (const auto& [name, record] : components_) {
      const auto counted = counters.find(record.id);
      if (counted == counters.end()) continue;
      for (const ComponentPort& port : record.ports) {
        if (port.index >= counted->second.size()) continue;  // it is being added
        json row = to_json(counted->second[port.index]);
        row.update({{"component", name}, {"tenant", record.tenant}, {"port", port.name}});
        all.push_back(std::move(row));
      }
    }
    done(std::move(all));
  });
}

std::vector<std::string_view> Components::tables(const std::string& name) const {
  return components_.at(name).settings->tables();
}

void Components::table(const std::string& name, const std::string& which,
                       std::function<void(json)> done) {
  const ComponentRecord& record = components_.at(name);
  const auto shown = std::make_shared<json>(json::array());
  wires_.with_component(
      record.id,
      [shown, which, settings = record.settings, places = record.places()](
          net::Component& component, Instant now) {
        *shown = settings->table(component, which, places, now);
      },
      [shown, done = std::move(done)] { done(*shown); });
}

}  // namespace godwit::agent
