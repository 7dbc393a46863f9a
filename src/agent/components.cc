#include "agent/components.hh"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "os/random.hh"

namespace godwit::agent {
namespace {

using nlohmann::json;

constexpr const char* kKind = "component";

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

std::map<net::PortIndex, PortId> ports_of(const ComponentRecord& record) {
  std::map<net::PortIndex, PortId> ports;
  for (const ComponentPort& port : record.ports) ports[port.index] = port.id;
  return ports;
}

// Only switches there are.
net::Switch& as_switch(net::Component& component) { return dynamic_cast<net::Switch&>(component); }

}  // namespace

Components::Components(const Config& config, store::Store& store, Network& network,
                       WireThread& wires, Events& events)
    : config_(config), store_(store), network_(network), wires_(wires), events_(events) {}

void Components::start() {
  for (const auto& document : store_.list(kKind)) {
    const ComponentRecord record = component_record(document.body);
    components_[record.name] = record;
    place(record);
  }
  remove_strays();
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

// New in the wire thread.
void Components::place(const ComponentRecord& record) {
  wires_.place(record.id, std::make_unique<net::Switch>(config_of(record), secret_number()),
               ports_of(record));
}

Result<> Components::make_ports(ComponentRecord& record, std::vector<PortId>& made) {
  for (ComponentPort& port : record.ports) {
    if (!port.id.is_zero()) continue;
    const auto added =
        network_.add_component_port(called(record, port), record.tenant, record.name);
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
  auto record = new_component(request);
  if (!record) return std::unexpected(record.error());
  if (const auto found = components_.find(record->name); found != components_.end()) {
    ComponentRecord same = found->second;
    same.id = {};
    for (ComponentPort& port : same.ports) port.id = {};
    if (same == *record) return to_json(found->second);
    return fail("there is another component '{0}' on host {1}: godwit component set {0}",
                record->name, config_.name);
  }
  if (components_.size() >= kMostComponents) {
    return fail("host {} has {} components, which is the most", config_.name, kMostComponents);
  }
  record->id = os::random_id<ComponentId>();
  std::vector<PortId> made;
  auto done = make_ports(*record, made);
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
  auto record = changed(before, request);
  if (!record) return std::unexpected(record.error());
  std::vector<PortId> gone, made;
  for (const ComponentPort& port : before.ports) {
    if (record->port(port.name) != nullptr) continue;
    if (network_.has_wire(port.id)) {
      return fail("port {} has a wire: disconnect it first", called(before, port));
    }
    gone.push_back(port.id);
  }
  auto done = make_ports(*record, made);
  if (done) done = store_.record(kKind, name, to_json(*record));
  if (!done) {
    remove_ports(made);
    return std::unexpected(done.error());
  }
  found->second = *record;
  wires_.with_component(
      record->id,
      [config = config_of(*record)](net::Component& component) {
        as_switch(component).configure(config);
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
  components_.erase(found);
  store_.erase(kKind, name);
  wires_.remove_component(record.id);
  remove_ports(ports);
  publish(record, "removed");
  return {};
}

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
      [shown](net::Component& component) {
        const net::Switch& sw = as_switch(component);
        const auto counters = sw.counters();
        for (json& port : (*shown)["ports"]) {
          const auto index = port["index"].get<std::size_t>();
          if (index < counters.size()) port.update(to_json(counters[index]));
        }
        (*shown)["known_macs"] = sw.macs().size();
        (*shown)["moved_macs"] = sw.moved();
        (*shown)["not_learned"] = sw.not_learned();
      },
      [shown, done = std::move(done)] { done(*shown); });
}

void Components::port_counters(std::function<void(json)> done) {
  wires_.port_counters([this, done = std::move(done)](const WireThread::PortCounters& counters) {
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

void Components::macs(const std::string& name, std::function<void(json)> done) {
  const ComponentRecord& record = components_.at(name);
  const auto shown = std::make_shared<json>(json::array());
  std::map<net::PortIndex, std::string> names;
  for (const ComponentPort& port : record.ports) names[port.index] = port.name;
  wires_.with_component(
      record.id,
      [shown, names](net::Component& component) {
        for (const auto& entry : as_switch(component).macs().entries()) {
          const auto port = names.find(entry.port);
          shown->push_back({{"mac", net::to_text(entry.mac)},
                            {"vlan", entry.vlan},
                            {"port", port != names.end() ? port->second : ""},
                            {"static", entry.is_static}});
        }
      },
      [shown, done = std::move(done)] { done(*shown); });
}

}  // namespace godwit::agent
