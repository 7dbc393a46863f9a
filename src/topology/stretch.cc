#include "topology/stretch.hh"

#include <algorithm>
#include <optional>

namespace godwit::topology {
namespace {

using nlohmann::json;

std::string trunk_to(const std::string& host) { return "to-" + host; }

const Thing* switch_at(const Actual& actual, const std::string& host, const std::string& name) {
  const auto found = std::ranges::find_if(actual.components, [&](const Thing& each) {
    return each.host == host && each.name == name && text_at(each.shown, "type") == "switch";
  });
  return found == actual.components.end() ? nullptr : &*found;
}

Result<const Thing*> need_switch(const Actual& actual, const std::string& host,
                                 const std::string& name) {
  if (const Thing* found = switch_at(actual, host, name)) return found;
  return fail("there is no switch '{}' on host {}; see godwit component ls", name, host);
}

// By the switches that they are of: a port is called by where the other was when it was made, and
// instances move.
struct Trunk {
  PortPlace own, far;
};
std::optional<Trunk> trunk_between(const Actual& actual, const std::string& name,
                                   const std::string& own, const std::string& far) {
  const auto is_of = [&](const PortPlace& port, const std::string& host) {
    return port.host == host && port.port.starts_with(name + "-") &&
           switch_at(actual, host, name) != nullptr;
  };
  for (const Wire& wire : actual.wires) {
    if (is_of(wire.a, own) && is_of(wire.b, far)) return Trunk{wire.a, wire.b};
    if (is_of(wire.b, own) && is_of(wire.a, far)) return Trunk{wire.b, wire.a};
  }
  return std::nullopt;
}

// Of a host, or of the first of a site that answers.
Result<std::string> host_called(const Actual& actual, const std::string& place) {
  const Host* found = nullptr;
  for (const Host& host : actual.hosts) {
    if (host.name == place) found = &host;
  }
  for (const Host& host : actual.hosts) {
    if (found == nullptr && host.site == place && host.is_up) found = &host;
  }
  if (found == nullptr) return fail("there is no host or site '{}'; see godwit host ls", place);
  if (!found->is_up) return fail("host {} does not answer: see godwit host ls", found->name);
  return found->name;
}

Step ask(Phase phase, const std::string& host, std::string what, const char* method,
         const std::string& path, json body) {
  json request = {{"method", method}, {"path", path}};
  if (!body.is_null()) request["body"] = std::move(body);
  return {.phase = phase, .host = host, .what = std::move(what), .request = std::move(request)};
}

json stretched_port(const std::string& to) { return {{"name", trunk_to(to)}, {"stretched", true}}; }

// What all instances have in common; ports, and what is said of them, are each host's own.
json instance_of(const Thing& one, const std::vector<std::string>& others) {
  json body = {{"name", one.name}, {"type", "switch"}, {"tenant", one.tenant}};
  for (const char* common : {"ageing_s", "most_macs", "snooping"}) {
    if (one.shown.contains(common)) body[common] = one.shown[common];
  }
  body["ports"] = json::array();
  for (const std::string& other : others) body["ports"].push_back(stretched_port(other));
  return body;
}

}  // namespace

std::vector<std::string> stretched_over(const Actual& actual, const std::string& host,
                                        const std::string& name) {
  std::vector<std::string> hosts{host};
  for (std::size_t i = 0; i < hosts.size(); ++i) {
    for (const Host& other : actual.hosts) {
      const bool is_new = std::ranges::find(hosts, other.name) == hosts.end();
      if (is_new && trunk_between(actual, name, hosts[i], other.name)) hosts.push_back(other.name);
    }
  }
  return hosts;
}

Result<std::vector<Step>> stretch(const Actual& actual, const std::string& host,
                                  const std::string& name, const std::string& to) {
  const auto here = need_switch(actual, host, name);
  if (!here) return std::unexpected(here.error());
  const auto there = host_called(actual, to);
  if (!there) return std::unexpected(there.error());
  std::vector<std::string> others = stretched_over(actual, host, name);
  const bool is_there = std::ranges::find(others, *there) != others.end();
  if (*there == host) return std::vector<Step>{};
  std::erase(others, *there);
  const std::string path = "/v1/components/" + name;
  std::vector<Step> steps;
  const bool has_one = std::ranges::any_of(actual.components, [&](const Thing& each) {
    return each.host == *there && each.name == name;
  });
  // One whose making was broken off has the trunks and nothing else.
  const auto is_ours = [&] {
    const Thing* found = switch_at(actual, *there, name);
    if (found == nullptr || found->tenant != (*here)->tenant) return false;
    return std::ranges::all_of(found->shown.value("ports", json::array()), [](const json& port) {
      return port.value("stretched", false) && text_at(port, "name").starts_with("to-");
    });
  };
  if (has_one && !is_there && !is_ours()) {
    return fail("host {} has another component '{}': remove it, or move this one's name", *there,
                name);
  }
  if (!has_one) {
    steps.push_back(ask(Phase::make, *there, "the switch at " + *there, "POST", "/v1/components",
                        instance_of(**here, others)));
  }
  for (const std::string& other : others) {
    if (trunk_between(actual, name, other, *there)) continue;
    if (has_one) {
      steps.push_back(ask(Phase::make, *there, "its port to " + other, "POST", path,
                          {{"ports", {stretched_port(other)}}}));
    }
    steps.push_back(ask(Phase::make, other, "the port to it at " + other, "POST", path,
                        {{"ports", {stretched_port(*there)}}}));
    const PortPlace own{*there, name + "-" + trunk_to(other)};
    const PortPlace far{other, name + "-" + trunk_to(*there)};
    steps.push_back(ask(Phase::connect, *there, "the wire to " + other, "POST", "/v1/wires",
                        {{"a", own.text()}, {"b", far.text()}}));
  }
  return steps;
}

Result<std::vector<Step>> unstretch(const Actual& actual, const std::string& host,
                                    const std::string& name, const std::string& from) {
  const auto here = need_switch(actual, host, name);
  if (!here) return std::unexpected(here.error());
  const auto there = host_called(actual, from);
  if (!there) return std::unexpected(there.error());
  if (*there == host) {
    return fail("{} is asked of host {} itself: ask it of another that keeps the switch", name,
                host);
  }
  std::vector<std::string> others = stretched_over(actual, host, name);
  if (std::erase(others, *there) == 0) return std::vector<Step>{};
  std::vector<Step> steps;
  for (const Wire& wire : actual.wires) {
    for (const auto& [own, far] : {std::pair(wire.a, wire.b), std::pair(wire.b, wire.a)}) {
      if (own.host != *there || !own.port.starts_with(name + "-")) continue;
      const bool is_trunk =
          far.port.starts_with(name + "-") && std::ranges::find(others, far.host) != others.end();
      if (is_trunk) continue;
      return fail(
          "{} is wired to {}: disconnect it, or join it to the switch at another host first",
          own.text(), far.text());
    }
  }
  const std::string path = "/v1/components/" + name;
  for (const std::string& other : others) {
    const auto trunk = trunk_between(actual, name, other, *there);
    if (!trunk) continue;
    steps.push_back(ask(Phase::cut, other, "the wire to " + *there, "DELETE", "/v1/wires",
                        {{"a", trunk->own.text()}, {"b", trunk->far.text()}}));
    steps.push_back(ask(Phase::remove, other, "the port to it at " + other, "POST", path,
                        {{"remove_ports", {trunk->own.port.substr(name.size() + 1)}}}));
  }
  steps.push_back(ask(Phase::remove, *there, "the switch at " + *there, "DELETE", path, nullptr));
  return steps;
}

}  // namespace godwit::topology
