#include "agent/component_record.hh"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "agent/records.hh"
#include "os/mac.hh"
#include "qemu/json.hh"

namespace godwit::agent {
namespace {

using nlohmann::json;

constexpr std::string_view kType = "switch";
constexpr std::uint32_t kLeastAgeing = 10, kMostAgeing = 1'000'000;  // seconds; 802.1Q, table 8-6
constexpr std::size_t kMostMacs = 1 << 20;

// Whole numbers from zero on; those made here may be of the signed kind.
bool is_count(const json& value, std::uint64_t most) {
  return value.is_number_integer() &&
         (value.is_number_unsigned() || value.get<std::int64_t>() >= 0) &&
         value.get<std::uint64_t>() <= most;
}

// Nothing where it is missing.
Result<std::optional<std::uint64_t>> number_field(const json& object, const char* key,
                                                  std::uint64_t most) {
  const json& value = qemu::member(object, key);
  if (value.is_null()) return std::nullopt;
  if (!is_count(value, most)) {
    return fail("'{}' is a number, at most {}", key, most);
  }
  return value.get<std::uint64_t>();
}

Result<> read_number(const json& object, const char* key, auto& into) {
  using Number = std::remove_reference_t<decltype(into)>;
  const auto value = number_field(object, key, std::numeric_limits<Number>::max());
  if (!value) return std::unexpected(value.error());
  if (*value) into = static_cast<Number>(**value);
  return {};
}

// Empty where it is missing: what is no list must not pass for one that says nothing.
Result<const json*> list_field(const json& object, const char* key) {
  const json& value = qemu::member(object, key);
  if (!value.is_null() && !value.is_array()) return fail("'{}' is a list", key);
  return &array_field(object, key);
}

Result<> read_flag(const json& object, const char* key, bool& into) {
  const auto value = flag_field(object, key, into);
  if (!value) return std::unexpected(value.error());
  into = *value;
  return {};
}

// Of one kind or the other: what is said of one ends the other.
Result<> read_vlans(const json& object, net::SwitchPort& port) {
  const auto access = number_field(object, "access", net::kMostVlan);
  if (!access) return std::unexpected(access.error());
  const auto trunk = list_field(object, "trunk");
  if (!trunk) return std::unexpected(trunk.error());
  if (*access) {
    port.access = static_cast<net::Vlan>(**access);
    port.trunk.clear();
    port.native = net::kUntagged;
  }
  if (!object.contains("trunk") && !object.contains("native")) return {};
  if (*access) return fail("a port is of one VLAN (access), or a trunk of several");
  port.access.reset();
  if (object.contains("trunk")) port.trunk.clear();
  for (const json& vlan : **trunk) {
    if (!is_count(vlan, net::kMostVlan)) return fail("'trunk' is a list of VLANs");
    port.trunk.push_back(vlan.get<net::Vlan>());
  }
  return read_number(object, "native", port.native);
}

Result<> read_port(const json& object, net::SwitchPort& port) {
  if (auto done = read_vlans(object, port); !done) return done;
  for (const auto& [key, flag] :
       {std::pair("isolated", &port.isolated), std::pair("stretched", &port.stretched),
        std::pair("mirrored", &port.mirrored)}) {
    if (auto done = read_flag(object, key, *flag); !done) return done;
  }
  return read_number(object, "flooded_per_s", port.flooded_per_s);
}

json to_json(const ComponentPort& port) {
  const net::SwitchPort& settings = port.settings;
  json object = {{"name", port.name}, {"index", port.index}, {"id", port.id.text()}};
  if (settings.access) {
    object["access"] = *settings.access;
  } else {
    object["trunk"] = settings.trunk;
    object["native"] = settings.native;
  }
  for (const auto& [key, flag] :
       {std::pair("isolated", settings.isolated), std::pair("stretched", settings.stretched),
        std::pair("mirrored", settings.mirrored)}) {
    if (flag) object[key] = true;
  }
  if (settings.flooded_per_s != 0) object["flooded_per_s"] = settings.flooded_per_s;
  return object;
}

net::PortIndex free_index(const ComponentRecord& record) {
  std::set<net::PortIndex> used;
  for (const ComponentPort& port : record.ports) used.insert(port.index);
  net::PortIndex index = 0;
  while (used.contains(index)) ++index;
  return index;
}

Result<> change_ports(const json& request, ComponentRecord& record) {
  const auto gone = list_field(request, "remove_ports"), ports = list_field(request, "ports");
  if (!gone) return std::unexpected(gone.error());
  if (!ports) return std::unexpected(ports.error());
  for (const std::string& name : texts_field(request, "remove_ports")) {
    std::erase_if(record.ports, [&](const auto& port) { return port.name == name; });
    std::erase_if(record.macs, [&](const auto& pinned) { return pinned.port == name; });
    if (record.mirror == name) record.mirror.clear();
  }
  for (const json& object : **ports) {
    const auto name = text_field(object, "name");
    if (!name) return std::unexpected(name.error());
    if (!is_valid_name(*name)) return fail("'{}' is no port: use a-z, 0-9 and '-'", *name);
    auto found = std::ranges::find(record.ports, *name, &ComponentPort::name);
    if (found == record.ports.end()) {
      record.ports.push_back({.name = *name, .index = free_index(record)});
      found = std::prev(record.ports.end());
    }
    if (auto done = read_port(object, found->settings); !done) {
      return fail("port {}: {}", *name, done.error().text);
    }
  }
  return {};
}

Result<> change_macs(const json& request, ComponentRecord& record) {
  const auto macs = list_field(request, "macs");
  if (!macs) return std::unexpected(macs.error());
  if (request.contains("macs")) record.macs.clear();
  for (const json& object : **macs) {
    const std::string text = text_field_or(object, "mac", "");
    const auto mac = os::MacAddress::parse(text);
    if (!mac) return fail("'{}' is no MAC address, like 52:54:00:12:34:56", text);
    ComponentRecord::Pinned pinned{
        .port = text_field_or(object, "port", ""),
        .mac = net::mac_at(std::as_bytes(std::span(mac->octets)).data())};
    if (auto done = read_number(object, "vlan", pinned.vlan); !done) return done;
    if (record.port(pinned.port) == nullptr) {
      return fail("{} is at no port of the switch: '{}'", text, pinned.port);
    }
    record.macs.push_back(std::move(pinned));
  }
  return {};
}

Result<> check(const ComponentRecord& record) {
  if (record.ageing_s < kLeastAgeing || record.ageing_s > kMostAgeing) {
    return fail("addresses age in {} to {} s", kLeastAgeing, kMostAgeing);
  }
  if (record.most_macs > kMostMacs) return fail("a switch learns at most {} addresses", kMostMacs);
  if (!record.mirror.empty() && record.port(record.mirror) == nullptr) {
    return fail("the mirror '{}' is no port of the switch", record.mirror);
  }
  return net::check(config_of(record));
}

}  // namespace

const ComponentPort* ComponentRecord::port(std::string_view port_name) const {
  const auto found = std::ranges::find(ports, port_name, &ComponentPort::name);
  return found == ports.end() ? nullptr : &*found;
}

json to_json(const ComponentRecord& record) {
  json ports = json::array(), macs = json::array();
  for (const ComponentPort& port : record.ports) ports.push_back(to_json(port));
  for (const auto& [port, vlan, mac] : record.macs) {
    macs.push_back({{"port", port}, {"vlan", vlan}, {"mac", net::to_text(mac)}});
  }
  return {{"id", record.id.text()},
          {"name", record.name},
          {"tenant", record.tenant},
          {"type", kType},
          {"ports", ports},
          {"mirror", record.mirror},
          {"macs", macs},
          {"ageing_s", record.ageing_s},
          {"most_macs", record.most_macs},
          {"snooping", record.snooping}};
}

ComponentRecord component_record(const json& json) {
  auto record = new_component(json);
  const auto id = id_field<ComponentId>(json, "id");
  if (!record || !id) {
    fail_setup("the agent's store holds a damaged record: a component: {}",
               record ? id.error().text : record.error().text);
  }
  record->id = *id;
  for (const auto& object : array_field(json, "ports")) {
    const auto port =
        std::ranges::find(record->ports, text_field_or(object, "name", ""), &ComponentPort::name);
    const auto port_id = id_field<PortId>(object, "id");
    if (port == record->ports.end() || !port_id) {
      fail_setup("the agent's store holds a damaged record: component {}", record->name);
    }
    port->id = *port_id;
    port->index = static_cast<net::PortIndex>(qemu::unsigned_at(object, "index"));
  }
  return *std::move(record);
}

Result<ComponentRecord> new_component(const json& request) {
  const auto name = text_field(request, "name");
  if (!name) return std::unexpected(name.error());
  ComponentRecord record{.name = *name, .tenant = text_field_or(request, "tenant", kDefaultTenant)};
  for (const auto& text : {record.name, record.tenant}) {
    if (!is_valid_name(text)) return fail("'{}' is no name: use a-z, 0-9 and '-'", text);
  }
  if (const auto type = text_field_or(request, "type", kType); type != kType) {
    return fail("a component is a '{}', not '{}'", kType, type);
  }
  return changed(std::move(record), request);
}

Result<ComponentRecord> changed(ComponentRecord record, const json& request) {
  if (auto done = change_ports(request, record); !done) return std::unexpected(done.error());
  if (auto done = change_macs(request, record); !done) return std::unexpected(done.error());
  if (request.contains("mirror")) {
    const auto mirror = text_field(request, "mirror");
    if (!mirror) return std::unexpected(mirror.error());
    record.mirror = *mirror;
  }
  for (const auto& [key, number] :
       {std::pair("ageing_s", &record.ageing_s), std::pair("most_macs", &record.most_macs)}) {
    if (auto done = read_number(request, key, *number); !done) {
      return std::unexpected(done.error());
    }
  }
  if (auto done = read_flag(request, "snooping", record.snooping); !done) {
    return std::unexpected(done.error());
  }
  if (auto good = check(record); !good) return std::unexpected(good.error());
  return record;
}

net::SwitchConfig config_of(const ComponentRecord& record) {
  net::SwitchConfig config{.ageing = seconds(record.ageing_s),
                           .most_macs = record.most_macs,
                           .snooping = record.snooping};
  for (const ComponentPort& port : record.ports) config.ports[port.index] = port.settings;
  if (const ComponentPort* mirror = record.port(record.mirror)) config.mirror = mirror->index;
  for (const auto& pinned : record.macs) {
    if (const ComponentPort* port = record.port(pinned.port)) {
      config.macs.push_back({.vlan = pinned.vlan, .mac = pinned.mac, .port = port->index});
    }
  }
  return config;
}

}  // namespace godwit::agent
