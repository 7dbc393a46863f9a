// Uplinks of guests in a routed network: what their moves need to know, and what follows a guest
// to its new host.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/network.hh"
#include "os/announce.hh"
#include "os/guest_route.hh"
#include "os/netlink.hh"
#include "os/segment.hh"
#include "qemu/json.hh"

namespace godwit::agent {
const PortRecord* Network::uplink_of_guest(const Ip& address) const {
  for (const auto& [id, record] : ports_) {
    for (const GuestAddress& each : record.guest) {
      if (each.address == address) return &record;
    }
  }
  return nullptr;
}

std::vector<PortId> Network::guest_uplinks(const std::vector<PortId>& nics) const {
  std::vector<PortId> uplinks;
  for (const PortId& nic : nics) {
    const WireRecord* wire = wire_at(nic);
    if (wire == nullptr || wire->remote_host != config_.name) continue;
    const auto found = ports_.find(wire->remote);
    if (found != ports_.end() && !found->second.guest.empty()) uplinks.push_back(wire->remote);
  }
  return uplinks;
}

const PortRecord* Network::guest_uplink(const PortId& port) const {
  const auto found = ports_.find(port);
  return found == ports_.end() || found->second.guest.empty() ? nullptr : &found->second;
}

std::optional<PortId> Network::displaced_uplink(const std::string& name) const {
  const PortRecord* record = find(name);
  if (record == nullptr || std::ranges::none_of(record->guest, [](const GuestAddress& each) {
        return each.locator || each.new_address;
      })) {
    return std::nullopt;
  }
  return record->id;
}

std::set<Ip> Network::locators() const {
  std::set<Ip> locators;
  for (const auto& [id, record] : ports_) {
    for (const GuestAddress& each : record.guest) {
      if (each.locator) locators.insert(*each.locator);
      if (each.new_address) locators.insert(*each.new_address);
    }
  }
  return locators;
}

std::set<Ip> Network::guests() const {
  std::set<Ip> guests;
  for (const auto& [id, record] : ports_) {
    for (const GuestAddress& each : record.guest) guests.insert(each.address);
  }
  for (const PortId& port : held_routed_) {
    for (const GuestAddress& each : arriving_.at(port).guest) guests.insert(each.address);
  }
  return guests;
}

std::map<Ip, Ip> Network::new_addresses() const {
  std::map<Ip, Ip> addresses;
  for (const auto& [id, record] : ports_) {
    for (const GuestAddress& each : record.guest) {
      if (each.new_address) addresses.emplace(each.address, *each.new_address);
    }
  }
  return addresses;
}

std::vector<Network::GuestNic> Network::guest_nics() const {
  std::vector<GuestNic> nics;
  const auto add = [&](const PortRecord& uplink, const WireRecord& wire, bool is_held) {
    const auto nic = ports_.find(wire.remote);
    nics.push_back({.nic = wire.remote,
                    .vm = nic == ports_.end() ? std::string() : nic->second.vm,
                    .is_held = is_held,
                    .interface = uplink.interface,
                    .guest = uplink.guest});
  };
  for (const auto& [id, record] : ports_) {
    const WireRecord* wire = wire_at(id);
    if (wire != nullptr && !record.guest.empty()) add(record, *wire, false);
  }
  for (const PortId& port : held_routed_) {
    const auto wire = arriving_wires_.find(port);
    if (wire != arriving_wires_.end()) add(arriving_.at(port), wire->second, true);
  }
  return nics;
}

void Network::tell_of_guests(const PortRecord& record) const {
  if (!record.guest.empty() && guests_changed) guests_changed();
}

Result<> Network::may_have_guest(const PortRecord& record) const {
  for (const GuestAddress& each : record.guest) {
    const PortRecord* other = uplink_of_guest(each.address);
    if (other == nullptr || other->id == record.id) continue;
    return fail("{} is the address of the guest behind port {} of host {}", each.address.text(),
                other->name, config_.name);
  }
  return {};
}

Result<> Network::route_guest(const PortId& port, const std::vector<GuestAddress>& guest) {
  const auto found = arriving_.find(port);
  if (found == arriving_.end()) return fail("port {} does not arrive here", port.text());
  found->second.guest = guest;
  try {
    for (const GuestAddress& each : guest) {
      os::route_guest(found->second.interface, each.address);
    }
    announce_guest(found->second);
  } catch (const SetupError& error) {
    return fail("port {}: {}", found->second.name, error.what());
  }
  held_routed_.insert(port);
  tell_of_guests(found->second);
  return {};
}

void Network::run_uplink(const PortId& port, const nlohmann::json& described) {
  wires_.run(port, devices_.at(port));
  have_run({port}, [](const Held&) {});
  const auto found = ports_.find(port);
  if (found == ports_.end()) return;
  expect_neighbours(found->second, described);
  tell_of_guests(found->second);
}

nlohmann::json Network::neighbours_of(const PortRecord& record) {
  nlohmann::json neighbours = nlohmann::json::object();
  try {
    for (const GuestAddress& each : record.guest) {
      const std::string address = each.address.text();
      const auto mac = os::Netlink().neighbour(record.interface, address);
      if (mac) neighbours[address] = mac->text();
    }
  } catch (const SetupError& error) {
    spdlog::warn("port {}: {}", record.name, error.what());
  }
  return neighbours;
}

// A guest that begins to run is slow to answer (40 to 90 ms if it is emulated, 2026-12).
void Network::expect_neighbours(const PortRecord& record, const nlohmann::json& described) {
  const nlohmann::json& neighbours = qemu::member(described, "neighbours");
  try {
    for (const GuestAddress& each : record.guest) {
      const std::string address = each.address.text();
      const auto mac = os::MacAddress::parse(text_field_or(neighbours, address.c_str(), ""));
      if (mac) os::Netlink().suggest_neighbour(record.interface, address, *mac);
    }
  } catch (const SetupError& error) {
    spdlog::warn("port {}: {}", record.name, error.what());
  }
}

void Network::correct_wire(nlohmann::json& described) const {
  const auto remote = id_field<PortId>(qemu::member(described, "wire"), "remote");
  const auto found = remote ? ports_.find(*remote) : ports_.end();
  if (found == ports_.end()) return;
  described["wire"]["remote_host"] = config_.name;
  described["wire"]["remote_epoch"] = found->second.epoch;
}

void Network::correct_held(const PortId& port) {
  const auto wire = arriving_wires_.find(port);
  const auto found =
      wire == arriving_wires_.end() ? ports_.end() : ports_.find(wire->second.remote);
  if (found == ports_.end()) return;
  wire->second.remote_host = config_.name;
  wire->second.remote_epoch = found->second.epoch;
  wires_.connect(config_of(wire->second));
}

// Of a guest that is behind this uplink no more.
void Network::unroute(const PortRecord& record) {
  try {
    for (const GuestAddress& each : record.guest) {
      if (!kept_routed_.contains(each.address)) os::unroute_guest(each.address);
    }
  } catch (const SetupError& error) {
    spdlog::warn("port {}: {}", record.name, error.what());
  }
}

// Who knew it elsewhere in its segment sends here from now on.
void Network::announce_guest(const PortRecord& record) const {
  for (const GuestAddress& each : record.guest) {
    const auto segment = os::segment_of(each.address);
    if (!segment) continue;
    if (const auto told = os::announce(*segment, each.address); !told) {
      spdlog::warn("port {}: {}", record.name, told.error().text);
    }
  }
}

// The same name as it had, if that is free here.
std::string Network::free_interface(const PortRecord& record) const {
  return os::Netlink().find(record.interface) ? os::TapPair::name_of(record.id) : record.interface;
}

}  // namespace godwit::agent
