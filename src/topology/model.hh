#pragma once
// What a network is made of, as a file wants it and as the hosts have it: values. Settings are the
// API's JSON and go through as they are, so that a new type of component needs nothing here.
//
//   file ──parse()──▶ Desired ─┐
//                              ├─ plan() ──▶ steps, each one request to one host
//   hosts ─actual()─▶ Actual ──┘
#include <compare>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/problem.hh"

namespace godwit::topology {

// A member of what others made; "" if it is missing or no text.
inline std::string text_at(const nlohmann::json& object, const char* key) {
  if (!object.is_object()) return {};
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

// "HOST/PORT"
struct PortPlace {
  std::string host, port;
  auto operator<=>(const PortPlace&) const = default;
  std::string text() const { return host + "/" + port; }
};

// ---- as it is ----

struct Host {
  std::string name, site;
  bool is_up = false;  // was asked
};

// A component, a port or a vm of a host, as its API shows it.
struct Thing {
  std::string host, name, tenant;
  std::string topology;  // that made it; empty: nobody's
  nlohmann::json shown;
};

struct Wire {
  PortPlace a, b;
  std::string tenant, topology;
  nlohmann::json shown;
  bool is_at(const PortPlace& port) const { return a == port || b == port; }
};

struct Actual {
  std::vector<Host> hosts;
  std::vector<Thing> components, ports, vms;
  std::vector<Wire> wires;  // each once
};

// ---- as it shall be ----

struct WantedThing {
  std::string place;  // a host, or a site
  std::string name, tenant;
  nlohmann::json settings;  // of the request that makes it, without name, host and tenant
  std::string where;
  // Of a component, if it is known: all settings that its type has, those that the file leaves out
  // as they are then, with its usual ports if it says none.
  nlohmann::json whole = nlohmann::json::object();
};

struct WantedWire {
  std::string a, b;  // "PORT", where one of the file is called that, or "HOST/PORT"
  std::string where;
};

struct Desired {
  std::string name, tenant;
  // What the file leaves out of a thing that this topology made is as it is where nobody says it.
  // False: it is as somebody has said it elsewhere.
  bool is_whole = true;
  std::vector<WantedThing> components, ports, vms;
  std::vector<WantedWire> wires;
};

}  // namespace godwit::topology
