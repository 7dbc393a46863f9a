#include "fabric/component.hh"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include <fmt/ranges.h>

namespace godwit::fabric {
namespace {

using nlohmann::json;

const json kNothingSaid = json::object();

Result<> check_name(const std::string& text) {
  if (is_valid_name(text)) return {};
  return fail("'{}' is no name: use a-z, 0-9 and '-'", text);
}

net::PortIndex free_index(const ComponentRecord& record) {
  std::set<net::PortIndex> used;
  for (const ComponentPort& port : record.ports) used.insert(port.index);
  net::PortIndex index = 0;
  while (used.contains(index)) ++index;
  return index;
}

void remove_port(const std::string& name, ComponentRecord& record, Settings& settings) {
  if (record.port(name) == nullptr) return;
  std::erase_if(record.ports, [&](const auto& port) { return port.name == name; });
  settings.forget_port(name);
}

void read_port(Fields& fields, ComponentRecord& record, Settings& settings) {
  std::string name;
  fields.text("name", name).ignore({"id", "index"});
  if (auto done = check_name(name); !done) return fields.fail(done.error().text);
  if (record.port(name) == nullptr) {
    record.ports.push_back({.name = name, .index = free_index(record)});
  }
  settings.read_port(name, fields);
}

void add_rest(json& object, const Fields& fields) {
  for (const auto& [key, nothing] : fields.asked().items()) object.emplace(key, nothing);
}

}  // namespace

const ComponentPort* ComponentRecord::port(std::string_view port_name) const {
  const auto found = std::ranges::find(ports, port_name, &ComponentPort::name);
  return found == ports.end() ? nullptr : &*found;
}

PortPlaces ComponentRecord::places() const {
  PortPlaces places;
  for (const ComponentPort& port : ports) places[port.name] = {.index = port.index, .id = port.id};
  return places;
}

json to_json(const ComponentRecord& record) {
  json ports = json::array();
  for (const ComponentPort& port : record.ports) {
    json object = record.settings->port_to_json(port.name);
    object.update({{"name", port.name}, {"index", port.index}, {"id", port.id.text()}});
    ports.push_back(std::move(object));
  }
  json object = record.settings->to_json();
  object.update({{"id", record.id.text()},
                 {"name", record.name},
                 {"tenant", record.tenant},
                 {"topology", record.topology},
                 {"type", record.type},
                 {"ports", ports}});
  return object;
}

json whole(const ComponentRecord& record) {
  json object = record.settings->to_json();
  const auto settings = record.settings->copy();
  Fields fields(kNothingSaid);
  settings->read(fields);
  add_rest(object, fields);
  json& ports = object["ports"] = json::array();
  for (const ComponentPort& port : record.ports) {
    json& shown = ports.emplace_back(record.settings->port_to_json(port.name));
    Fields of_port(kNothingSaid);
    settings->read_port(port.name, of_port);
    add_rest(shown, of_port);
    shown["name"] = port.name;
  }
  return object;
}

Result<ComponentRecord> component_record(const json& json) {
  auto record = new_component(json);
  if (!record) return record;
  Fields fields(json);
  fields.id("id", record->id).each("ports", [&](Fields& port) {
    std::string name;
    port.text("name", name);
    const auto found = std::ranges::find(record->ports, name, &ComponentPort::name);
    if (found != record->ports.end()) port.id("id", found->id).number("index", found->index);
    for (const auto& key : {"id", "index"}) {
      if (!port.has(key)) port.fail(fmt::format("it has no '{}'", key));
    }
    port.ignore_rest();
  });
  if (const auto done = fields.ignore_rest().done(); !done) return std::unexpected(done.error());
  return record;
}

Result<ComponentRecord> new_component(const json& request) {
  ComponentRecord record{.tenant = "default", .type = "switch"};
  Fields fields(request);
  fields.text("name", record.name).text("tenant", record.tenant).text("type", record.type);
  fields.text("topology", record.topology);
  if (const auto done = fields.ignore_rest().done(); !done) return std::unexpected(done.error());
  for (const auto& text : {record.name, record.tenant}) {
    if (auto good = check_name(text); !good) return std::unexpected(good.error());
  }
  if (const auto good = check_name(record.topology); !good && !record.topology.empty()) {
    return std::unexpected(good.error());
  }
  auto settings = settings_of(record.type);
  if (!settings) {
    return fail("a component is one of {}, not '{}'", fmt::join(component_types(), ", "),
                record.type);
  }
  if (!request.contains("ports")) {
    for (const std::string& name : settings->usual_ports()) {
      Fields nothing(kNothingSaid);
      record.ports.push_back({.name = name, .index = free_index(record)});
      settings->read_port(name, nothing);
    }
  }
  record.settings = std::move(settings);
  return changed(std::move(record), request);
}

Result<ComponentRecord> changed(ComponentRecord record, const json& request) {
  auto settings = record.settings->copy();
  Fields fields(request);
  std::vector<std::string> gone;
  fields.ignore({"name", "type", "tenant", "topology", "id"}).texts("remove_ports", gone);
  for (const std::string& name : gone) remove_port(name, record, *settings);
  fields.each("ports", [&](Fields& port) { read_port(port, record, *settings); });
  settings->read(fields);
  if (const auto done = fields.done(); !done) return std::unexpected(done.error());
  if (const auto good = settings->check(record.places()); !good) {
    return std::unexpected(good.error());
  }
  record.settings = std::move(settings);
  return record;
}

}  // namespace godwit::fabric
