#pragma once
// A component as the operator names it, and as the store keeps it: values and their JSON form, the
// same in the store, in requests and in what the API shows.
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/id.hh"
#include "net/switch.hh"

namespace godwit::agent {

struct ComponentPort {
  std::string name;  // within the component; the port is called COMPONENT-NAME
  net::PortIndex index = 0;
  PortId id{};
  net::SwitchPort settings{};
  bool operator==(const ComponentPort&) const = default;
};

// kind "component", by name.
struct ComponentRecord {
  ComponentId id{};
  std::string name, tenant;
  std::vector<ComponentPort> ports{};
  std::string mirror{};  // a port; empty: none
  struct Pinned {
    std::string port;
    net::Vlan vlan = net::kUntagged;
    net::Mac mac = 0;
    bool operator==(const Pinned&) const = default;
  };
  std::vector<Pinned> macs{};
  std::uint32_t ageing_s = 300, most_macs = 16384;  // as net::SwitchConfig
  bool snooping = true;
  bool operator==(const ComponentRecord&) const = default;

  const ComponentPort* port(std::string_view port_name) const;
};
nlohmann::json to_json(const ComponentRecord& record);
// Of the store; throws SetupError where it is damaged.
ComponentRecord component_record(const nlohmann::json& json);

// {name, type?, tenant?, ports?: [{name, access?, trunk?, native?, isolated?, stretched?,
// mirrored?, flooded_per_s?}], mirror?, macs?: [{mac, port, vlan?}], ageing_s?, most_macs?,
// snooping?}: a new
// one, without ids.
Result<ComponentRecord> new_component(const nlohmann::json& request);
// The same fields but name, type and tenant, and remove_ports: [name]: what is said is changed, a
// port that is not there is added. Ids and indices stay.
Result<ComponentRecord> changed(ComponentRecord record, const nlohmann::json& request);

net::SwitchConfig config_of(const ComponentRecord& record);

}  // namespace godwit::agent
