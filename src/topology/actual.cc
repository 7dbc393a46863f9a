#include "topology/actual.hh"

#include <algorithm>
#include <set>

namespace godwit::topology {
namespace {

using nlohmann::json;

json list_at(const json& object, const char* key) {
  if (!object.is_object() || !object.contains(key) || !object[key].is_array()) return json::array();
  return object[key];
}

std::vector<Thing> things(const std::string& host, const json& list) {
  std::vector<Thing> found;
  for (const json& each : list) {
    found.push_back({.host = host,
                     .name = text_at(each, "name"),
                     .tenant = text_at(each, "tenant"),
                     .topology = text_at(each, "topology"),
                     .shown = each});
  }
  return found;
}

void append(std::vector<Thing>& to, std::vector<Thing> more) {
  to.insert(to.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
}

PortPlace end_of(const json& wire, const char* which) {
  const json end = wire.is_object() ? wire.value(which, json()) : json();
  return {.host = text_at(end, "host"), .port = text_at(end, "port")};
}

}  // namespace

Actual actual(const json& hosts, const std::map<std::string, json>& of) {
  Actual all;
  for (const json& host : hosts) {
    const std::string name = text_at(host, "name");
    all.hosts.push_back({.name = name, .site = text_at(host, "site"), .is_up = of.contains(name)});
  }
  std::ranges::sort(all.hosts, {}, &Host::name);
  std::set<std::string> known;
  for (const auto& [host, answers] : of) {
    append(all.components, things(host, list_at(answers, "components")));
    append(all.ports, things(host, list_at(answers, "ports")));
    append(all.vms, things(host, list_at(answers, "vms")));
    for (const json& wire : list_at(answers, "wires")) {
      if (!known.insert(text_at(wire, "id")).second) continue;  // its other end's host told of it
      all.wires.push_back({.a = end_of(wire, "a"),
                           .b = end_of(wire, "b"),
                           .tenant = text_at(wire, "tenant"),
                           .topology = text_at(wire, "topology"),
                           .shown = wire});
    }
  }
  return all;
}

}  // namespace godwit::topology
