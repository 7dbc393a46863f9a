#pragma once
// A component as the operator names it, and as the store keeps it: a value and its JSON form, the
// same in the store, in requests and in what the API shows.
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "fabric/settings.hh"

namespace godwit::fabric {

struct ComponentPort {
  std::string name{};  // within the component; the port is called COMPONENT-NAME
  net::PortIndex index = 0;
  PortId id{};
};

// kind "component", by name.
struct ComponentRecord {
  ComponentId id{};
  std::string name{}, tenant{}, type{};
  std::string topology{};  // which made it, if any
  std::vector<ComponentPort> ports{};
  std::shared_ptr<const Settings> settings{};  // never null

  const ComponentPort* port(std::string_view port_name) const;
  PortPlaces places() const;
};
nlohmann::json to_json(const ComponentRecord& record);
// Of the store.
Result<ComponentRecord> component_record(const nlohmann::json& json);

// Only what a request may say of it, but all of that: what to_json() leaves out as it is nothing,
// too.
nlohmann::json whole(const ComponentRecord& record);

// {name, type?, tenant?, topology?, ports?: [{name, ...}], ...}, the rest as the type has it (its
// Settings): a new one, without ids.
Result<ComponentRecord> new_component(const nlohmann::json& request);
// The same fields but name, type, tenant and topology, and remove_ports: [name]: what is said is
// changed, a port that is not there is added. Ids and indices stay.
Result<ComponentRecord> changed(ComponentRecord record, const nlohmann::json& request);

}  // namespace godwit::fabric
