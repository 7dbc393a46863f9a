#pragma once
// What a component of one type is told: its own fields and those of its ports, as requests, records
// and topologies say them; and the component that is made of it. Values: a change makes another.
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "fabric/fields.hh"
#include "net/component.hh"

namespace godwit::fabric {

// Where a component's ports are, by name.
struct PortPlace {
  net::PortIndex index = 0;
  PortId id{};
  bool operator==(const PortPlace&) const = default;
};
using PortPlaces = std::map<std::string, PortPlace>;

// Of a component's own port, the same as long as the port is: locally administered, from its id.
net::Mac mac_of(const PortId& port);

class Settings {
 public:
  virtual ~Settings() = default;
  virtual std::unique_ptr<Settings> copy() const = 0;
  // Of one that is added without saying its ports.
  virtual std::vector<std::string> usual_ports() const = 0;

  // What is said is changed, the rest stays.
  virtual void read(Fields& fields) = 0;
  virtual void read_port(const std::string& port, Fields& fields) = 0;
  virtual void forget_port(const std::string& port) = 0;
  virtual Result<> check(const PortPlaces& ports) const = 0;
  // Only what read() and read_port() take.
  virtual nlohmann::json to_json() const = 0;
  virtual nlohmann::json port_to_json(const std::string& port) const = 0;

  // In the wire thread, all of these but make(). `seed`: a secret, for hashing.
  virtual std::unique_ptr<net::Component> make(const PortPlaces& ports,
                                               std::uint64_t seed) const = 0;
  virtual void configure(net::Component& component, const PortPlaces& ports) const = 0;
  // What it has counted besides its ports.
  virtual nlohmann::json describe(const net::Component& component) const = 0;
  // Of tables(): what it knows, as a list of objects.
  virtual nlohmann::json table(const net::Component& component, std::string_view name,
                               const PortPlaces& ports, Instant now) const = 0;
  virtual std::vector<std::string_view> tables() const = 0;

  // What must outlive the agent besides all this, as a DHCP server's leases: whether there is such
  // a thing, how often it changed, and what it is, with times as seconds from `now`.
  virtual bool has_state() const = 0;
  virtual std::uint64_t changes(const net::Component& component) const = 0;
  virtual nlohmann::json state(const net::Component& component, Instant now) const = 0;
  virtual void restore(net::Component& component, const nlohmann::json& state,
                       Instant now) const = 0;
};

// Null: there is no such type.
std::unique_ptr<Settings> settings_of(std::string_view type);
const std::vector<std::string_view>& component_types();

}  // namespace godwit::fabric
