#include "topology/places.hh"

#include <fmt/ranges.h>

#include <algorithm>

namespace godwit::topology {
namespace {

using nlohmann::json;

const json& list_of(const json& settings, const char* key) {
  static const json kNone = json::array();
  const auto found = settings.find(key);
  return found != settings.end() && found->is_array() ? *found : kNone;
}

}  // namespace

Places::Places(const Desired& desired, const Actual& actual, std::vector<Problem>& problems)
    : desired_(desired), actual_(actual), problems_(problems) {
  for (const Thing& each : actual.components) {
    component_at_[{each.host, each.name}] = &each;
    if (each.topology == desired.name) made_component_.emplace(each.name, &each);
  }
  for (const Thing& each : actual.ports) {
    port_at_[{each.host, each.name}] = &each;
    hosts_that_have_[each.name].insert(each.host);
  }
  for (const Thing& each : actual.vms) vm_named_[each.name] = &each;
  for (const topology::Wire& each : actual.wires) {
    wire_at_[each.a] = &each;
    wire_at_[each.b] = &each;
  }
  for (const auto& each : desired.components) components_.push_back(host_of_component(each));
  for (const auto& each : desired.ports) ports_.push_back(host_of_port(each));
  for (const auto& each : desired.vms) vms_.push_back(host_of_vm(each));
  find_ports();
  find_wires();
}

const Thing* Places::component(const std::string& host, const std::string& name) const {
  const auto found = component_at_.find({host, name});
  return found == component_at_.end() ? nullptr : found->second;
}

const Thing* Places::port(const PortPlace& port) const {
  const auto found = port_at_.find(port);
  return found == port_at_.end() ? nullptr : found->second;
}

const Thing* Places::vm(const std::string& name, const std::string& tenant) const {
  const auto found = vm_named_.find(name);
  return found == vm_named_.end() || found->second->tenant != tenant ? nullptr : found->second;
}

const Wire* Places::wire(const PortPlace& port) const {
  const auto found = wire_at_.find(port);
  return found == wire_at_.end() ? nullptr : found->second;
}

std::string Places::all_places() const {
  std::set<std::string> all;
  for (const Host& host : actual_.hosts) {
    all.insert(host.name);
    all.insert(host.site);
  }
  return fmt::format("{}", fmt::join(all, ", "));
}

// Of a site: where it is already, else the first of its hosts.
std::string Places::host_for(const WantedThing& thing, const Index& present) {
  std::vector<const Host*> candidates;
  for (const Host& host : actual_.hosts) {
    if (host.site == thing.place) candidates.push_back(&host);
  }
  for (const Host& host : actual_.hosts) {
    if (host.name == thing.place) candidates = {&host};
  }
  if (candidates.empty()) {
    problems_.push_back({thing.where, fmt::format("'{}' is at no host or site '{}': there are {}",
                                                  thing.name, thing.place, all_places())});
    return {};
  }
  const Host* chosen = nullptr;
  for (const Host* host : candidates) {
    if (present.contains({host->name, thing.name})) chosen = host;
  }
  for (const Host* host : candidates) {
    if (chosen == nullptr && host->is_up) chosen = host;
  }
  if (chosen != nullptr) return chosen->name;
  problems_.push_back({thing.where, fmt::format("host {}, where '{}' is to be, does not answer: "
                                                "see godwit host ls",
                                                candidates.front()->name, thing.name)});
  return {};
}

// One that this topology made and that has moved is where it is. Not where the file, or the
// topology, has several of that name: they are told apart by their hosts.
std::string Places::host_of_component(const WantedThing& thing) {
  const std::string host = host_for(thing, component_at_);
  if (host.empty() || component_at_.contains({host, thing.name})) return host;
  const auto [made, end] = made_component_.equal_range(thing.name);
  const bool is_one = made != end && std::next(made) == end &&
                      std::ranges::count(desired_.components, thing.name, &WantedThing::name) == 1;
  return is_one && made->second->tenant == thing.tenant ? made->second->host : host;
}

// The port of a vm that has moved went with it.
std::string Places::host_of_port(const WantedThing& thing) {
  const std::string host = host_for(thing, port_at_);
  if (host.empty() || port_at_.contains({host, thing.name})) return host;
  for (const std::string& other : hosts_that_have_[thing.name]) {
    const Thing& there = *port_at_.at({other, thing.name});
    if (there.tenant == thing.tenant && !text_at(there.shown, "vm").empty()) return other;
  }
  return host;
}

std::string Places::host_of_vm(const WantedThing& thing) {
  if (const Thing* there = vm(thing.name, thing.tenant)) return there->host;
  static const Index kNone;
  return host_for(thing, kNone);
}

void Places::add_port(const std::string& host, const std::string& name, const std::string& where) {
  if (host.empty()) {
    placeless_.insert(name);
    return;
  }
  if (name.empty()) return;
  if (!all_ports_.insert({host, name}).second) {
    problems_.push_back({where, fmt::format("there are two ports '{}' at host {}", name, host)});
  }
  hosts_of_port_[name].insert(host);
}

void Places::find_ports() {
  for (std::size_t i = 0; i < components_.size(); ++i) {
    const WantedThing& component = desired_.components[i];
    const bool is_known = component.whole.contains("ports");
    for (const json& port : list_of(is_known ? component.whole : component.settings, "ports")) {
      const std::string name = component.name + "-" + text_at(port, "name");
      add_port(components_[i], name, component.where);
      said_place_[{components_[i], name}] = component.place;
    }
  }
  for (std::size_t i = 0; i < ports_.size(); ++i) {
    add_port(ports_[i], desired_.ports[i].name, desired_.ports[i].where);
  }
  for (std::size_t i = 0; i < vms_.size(); ++i) {
    for (const json& nic : list_of(desired_.vms[i].settings, "nics")) {
      const PortPlace port{vms_[i], text_at(nic, "port")};
      if (!all_ports_.contains(port)) add_port(port.host, port.port, desired_.vms[i].where);
    }
  }
}

std::optional<PortPlace> Places::end(const std::string& text, const std::string& where) {
  const std::size_t slash = text.find('/');
  const std::string name = slash == std::string::npos ? text : text.substr(slash + 1);
  const std::string place = slash == std::string::npos ? "" : text.substr(0, slash);
  if (placeless_.contains(name)) return std::nullopt;  // told already
  std::set<std::string> hosts = hosts_of_port_[name];
  const bool is_of_file = !hosts.empty();
  if (!is_of_file) hosts = hosts_that_have_[name];
  const auto is_there = [&](const std::string& host) {
    return std::ranges::any_of(actual_.hosts, [&](const Host& each) {
      return each.name == host && (each.name == place || each.site == place);
    });
  };
  const auto is_said_to_be = [&](const std::string& host) {
    const auto said = said_place_.find({host, name});
    return said != said_place_.end() && said->second == place;
  };
  if (!place.empty()) {
    std::erase_if(hosts, [&](const auto& host) { return !is_there(host) && !is_said_to_be(host); });
  }
  if (hosts.size() == 1) return PortPlace{*hosts.begin(), name};
  if (hosts.empty()) {
    problems_.push_back(
        {where, place.empty()
                    ? fmt::format("there is no port '{}': the file has none, nor has a host; a "
                                  "component's port is called COMPONENT-PORT",
                                  text)
                    : fmt::format("there is no port '{}' at '{}', neither in this file nor there",
                                  name, place)});
  } else {
    problems_.push_back({where, fmt::format("there are several ports '{}': write {}/{}", text,
                                            fmt::join(hosts, fmt::format("/{} or ", name)), name)});
  }
  return std::nullopt;
}

void Places::find_wires() {
  std::map<PortPlace, const WantedWire*> taken;
  for (const WantedWire& wanted : desired_.wires) {
    const auto a = end(wanted.a, wanted.where), b = end(wanted.b, wanted.where);
    if (!a || !b) continue;
    if (*a == *b) {
      problems_.push_back({wanted.where, fmt::format("port '{}' is wired to itself", wanted.a)});
      continue;
    }
    for (const PortPlace& each : {*a, *b}) {
      if (taken.try_emplace(each, &wanted).second) continue;
      problems_.push_back(
          {wanted.where, fmt::format("port {} has another wire in this file", each.text())});
    }
    wires_.push_back({*a, *b, &wanted});
  }
}

}  // namespace godwit::topology
