#include "topology/topology_testing.hh"

#include <algorithm>

namespace godwit::topology {

using nlohmann::json;

namespace {

PortPlace place_of(const std::string& text) {
  const std::size_t slash = text.find('/');
  return {.host = text.substr(0, slash), .port = text.substr(slash + 1)};
}

}  // namespace

ModelFleet::ModelFleet() {
  actual.hosts = {{"e1", "east", true}, {"e2", "east", true}, {"w1", "west", true}};
}

Thing* ModelFleet::find(std::vector<Thing>& things, const std::string& host,
                        const std::string& name) {
  const auto found = std::ranges::find_if(
      things, [&](const Thing& each) { return each.host == host && each.name == name; });
  return found == things.end() ? nullptr : &*found;
}

Wire* ModelFleet::wire_at(const PortPlace& port) {
  const auto found =
      std::ranges::find_if(actual.wires, [&](const Wire& wire) { return wire.is_at(port); });
  return found == actual.wires.end() ? nullptr : &*found;
}

bool ModelFleet::add_port(const std::string& host, json body, const std::string& component) {
  const std::string name = body["name"];
  if (find(actual.ports, host, name) != nullptr) return false;
  body["component"] = component;
  if (!body.contains("vm")) body["vm"] = "";
  if (!body.contains("kind")) body["kind"] = component.empty() ? "nic" : "component";
  const std::string tenant = body.value("tenant", "default");
  actual.ports.push_back({host, name, tenant, body.value("topology", ""), body});
  return true;
}

bool ModelFleet::add_component(const std::string& host, json body) {
  const std::string name = body["name"];
  if (find(actual.components, host, name) != nullptr) return false;
  actual.components.push_back(
      {host, name, body.value("tenant", "default"), body.value("topology", ""), body});
  Thing& made = actual.components.back();
  made.shown["ports"] = json::array();
  if (!made.shown.contains("type")) made.shown["type"] = "switch";
  if (!made.shown.contains("ageing_s")) made.shown["ageing_s"] = 300;
  return change_component(host, name, body);
}

bool ModelFleet::change_component(const std::string& host, const std::string& name,
                                  const json& body) {
  Thing* component = find(actual.components, host, name);
  if (component == nullptr) return false;
  json& ports = component->shown["ports"];
  for (const auto& [key, value] : body.items()) {
    if (key != "ports" && key != "remove_ports" && key != "topology") component->shown[key] = value;
  }
  for (const json& gone : body.value("remove_ports", json::array())) {
    const std::string port = name + "-" + gone.get<std::string>();
    if (wire_at({host, port}) != nullptr) return false;
    std::erase_if(ports.get_ref<json::array_t&>(),
                  [&](const json& p) { return p["name"] == gone; });
    std::erase_if(actual.ports, [&](const Thing& p) { return p.host == host && p.name == port; });
  }
  for (const json& wanted : body.value("ports", json::array())) {
    const auto there =
        std::ranges::find_if(ports, [&](const json& p) { return p["name"] == wanted["name"]; });
    if (there != ports.end()) {
      there->update(wanted);
      continue;
    }
    ports.push_back(wanted);
    if (!add_port(host,
                  {{"name", name + "-" + wanted["name"].get<std::string>()},
                   {"tenant", component->tenant},
                   {"topology", body.value("topology", "")}},
                  name)) {
      return false;
    }
  }
  return true;
}

bool ModelFleet::run_vm(const std::string& host, const json& body) {
  const std::string name = body["name"];
  if (find(actual.vms, host, name) != nullptr) return false;
  actual.vms.push_back({host, name, body.value("tenant", "default"), "", body});
  for (const json& nic : body.value("nics", json::array())) {
    const std::string port = nic["port"];
    if (find(actual.ports, host, port) == nullptr) {
      add_port(host,
               {{"name", port},
                {"tenant", body.value("tenant", "default")},
                {"topology", body.value("topology", "")}},
               "");
    }
    find(actual.ports, host, port)->shown["vm"] = name;
  }
  return true;
}

bool ModelFleet::connect(const json& body) {
  const PortPlace a = place_of(body["a"]), b = place_of(body["b"]);
  const Thing* at_a = find(actual.ports, a.host, a.port);
  const Thing* at_b = find(actual.ports, b.host, b.port);
  if (at_a == nullptr || at_b == nullptr || at_a->tenant != at_b->tenant) return false;
  if (wire_at(a) != nullptr || wire_at(b) != nullptr) return false;
  actual.wires.push_back({a, b, at_a->tenant, body.value("topology", ""), {{"state", "up"}}});
  return true;
}

bool ModelFleet::remove(const std::string& host, const std::string& collection,
                        const std::string& name) {
  const auto is_it = [&](const Thing& each) { return each.host == host && each.name == name; };
  if (collection == "ports") {
    const Thing* port = find(actual.ports, host, name);
    if (port == nullptr || port->shown["vm"] != "" || port->shown["component"] != "") return false;
    if (wire_at({host, name}) != nullptr) return false;
    return std::erase_if(actual.ports, is_it) == 1;
  }
  if (collection == "vms") {
    for (Thing& port : actual.ports) {
      if (port.host == host && port.shown["vm"] == name) port.shown["vm"] = "";
    }
    return std::erase_if(actual.vms, is_it) == 1;
  }
  const auto is_its_port = [&](const Thing& port) {
    return port.host == host && port.shown["component"] == name;
  };
  for (const Thing& port : actual.ports) {
    if (is_its_port(port) && wire_at({host, port.name}) != nullptr) return false;
  }
  std::erase_if(actual.ports, is_its_port);
  return std::erase_if(actual.components, is_it) == 1;
}

bool ModelFleet::apply(const Step& step) {
  const std::string method = step.request["method"], path = step.request["path"];
  const json body = step.request.value("body", json::object());
  const std::string rest = path.substr(std::string("/v1/").size());
  const std::size_t slash = rest.find('/');
  const std::string collection = rest.substr(0, slash);
  const std::string name = slash == std::string::npos ? "" : rest.substr(slash + 1);
  if (method == "DELETE" && collection == "wires") {
    return std::erase_if(actual.wires, [&](const Wire& wire) {
             return wire.is_at(place_of(body["a"])) && wire.is_at(place_of(body["b"]));
           }) == 1;
  }
  if (method == "DELETE") return remove(step.host, collection, name);
  if (name.ends_with("/stop")) return true;
  if (collection == "wires") return connect(body);
  if (collection == "vms") return run_vm(step.host, body);
  if (collection == "ports") return add_port(step.host, body, "");
  return name.empty() ? add_component(step.host, body) : change_component(step.host, name, body);
}

int ModelFleet::apply(const std::vector<Step>& steps, bool prune) {
  int refused = 0;
  for (const Step& step : steps) {
    if (step.prune && !prune) continue;
    if (!apply(step)) ++refused;
  }
  return refused;
}

}  // namespace godwit::topology
