#include "fabric/switch_settings.hh"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace godwit::fabric {
namespace {

using nlohmann::json;

constexpr std::uint32_t kLeastAgeing = 10, kMostAgeing = 1'000'000;  // seconds; 802.1Q, table 8-6
constexpr std::uint32_t kMostMacs = 1 << 20;

// Of one kind or the other: what is said of one ends the other.
void read_vlans(Fields& fields, net::SwitchPort& port) {
  net::SwitchPort said;
  fields.number("access", said.access, net::kMostVlan)
      .numbers("trunk", said.trunk, net::kMostVlan)
      .number("native", said.native, net::kMostVlan);
  if (said.access && (!said.trunk.empty() || said.native != net::kUntagged)) {
    return fields.fail("a port is of one VLAN (access), or a trunk of several");
  }
  if (fields.has("access") || fields.has("trunk") || fields.has("native")) {
    port.access = said.access;
  }
  if (said.access || fields.has("trunk")) port.trunk = said.trunk;
  if (said.access || fields.has("native")) port.native = said.native;
}

const net::Switch& as_switch(const net::Component& component) {
  return dynamic_cast<const net::Switch&>(component);
}

}  // namespace

std::unique_ptr<Settings> SwitchSettings::copy() const {
  return std::make_unique<SwitchSettings>(*this);
}

void SwitchSettings::read(Fields& fields) {
  fields.text("mirror", mirror_)
      .number("ageing_s", ageing_s_, kMostAgeing, kLeastAgeing)
      .number("most_macs", most_macs_, kMostMacs, 1)
      .flag("snooping", snooping_);
  if (fields.has("macs")) macs_.clear();
  fields.each("macs", [this](Fields& each) {
    Pinned& pinned = macs_.emplace_back();
    each.mac("mac", pinned.mac)
        .text("port", pinned.port)
        .number("vlan", pinned.vlan, net::kMostVlan);
  });
}

void SwitchSettings::read_port(const std::string& port, Fields& fields) {
  net::SwitchPort& settings = ports_[port];
  read_vlans(fields, settings);
  fields.flag("isolated", settings.isolated)
      .flag("stretched", settings.stretched)
      .flag("mirrored", settings.mirrored)
      .number("flooded_per_s", settings.flooded_per_s);
}

void SwitchSettings::forget_port(const std::string& port) {
  ports_.erase(port);
  std::erase_if(macs_, [&](const Pinned& pinned) { return pinned.port == port; });
  if (mirror_ == port) mirror_.clear();
}

Result<> SwitchSettings::check(const PortPlaces& ports) const {
  if (!mirror_.empty() && !ports.contains(mirror_)) {
    return fail("the mirror '{}' is no port of the switch", mirror_);
  }
  for (const Pinned& pinned : macs_) {
    if (!ports.contains(pinned.port)) {
      return fail("{} is at no port of the switch: '{}'", net::to_text(pinned.mac), pinned.port);
    }
  }
  return net::check(config(ports));
}

json SwitchSettings::to_json() const {
  json macs = json::array();
  for (const auto& [port, vlan, mac] : macs_) {
    macs.push_back({{"port", port}, {"vlan", vlan}, {"mac", net::to_text(mac)}});
  }
  return {{"mirror", mirror_},
          {"macs", macs},
          {"ageing_s", ageing_s_},
          {"most_macs", most_macs_},
          {"snooping", snooping_}};
}

json SwitchSettings::port_to_json(const std::string& port) const {
  const net::SwitchPort& settings = ports_.at(port);
  json object = json::object();
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

net::SwitchConfig SwitchSettings::config(const PortPlaces& ports) const {
  net::SwitchConfig config{
      .ageing = seconds(ageing_s_), .most_macs = most_macs_, .snooping = snooping_};
  for (const auto& [name, settings] : ports_) config.ports[ports.at(name).index] = settings;
  if (!mirror_.empty()) config.mirror = ports.at(mirror_).index;
  for (const Pinned& pinned : macs_) {
    config.macs.push_back(
        {.vlan = pinned.vlan, .mac = pinned.mac, .port = ports.at(pinned.port).index});
  }
  return config;
}

std::unique_ptr<net::Component> SwitchSettings::make(const PortPlaces& ports,
                                                     std::uint64_t seed) const {
  return std::make_unique<net::Switch>(config(ports), seed);
}

void SwitchSettings::configure(net::Component& component, const PortPlaces& ports) const {
  dynamic_cast<net::Switch&>(component).configure(config(ports));
}

json SwitchSettings::describe(const net::Component& component) const {
  const net::Switch& sw = as_switch(component);
  return {{"known_macs", sw.macs().size()},
          {"moved_macs", sw.moved()},
          {"not_learned", sw.not_learned()}};
}

json SwitchSettings::table(const net::Component& component, std::string_view /*name*/,
                           const PortPlaces& ports, Instant /*now*/) const {
  json rows = json::array();
  for (const auto& entry : as_switch(component).macs().entries()) {
    const auto port =
        std::ranges::find(ports, entry.port, [](const auto& each) { return each.second.index; });
    rows.push_back({{"mac", net::to_text(entry.mac)},
                    {"vlan", entry.vlan},
                    {"port", port != ports.end() ? port->first : ""},
                    {"static", entry.is_static}});
  }
  return rows;
}

}  // namespace godwit::fabric
