#include "agent/endpoint_relays.hh"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/connection_list.hh"
#include "os/guest_route.hh"
#include "os/relay_route.hh"
#include "os/wall_clock.hh"
#include "qemu/json.hh"

namespace godwit::agent {
namespace {

constexpr const char* kRelayKind = "relay";
constexpr const char* kPartingKind = "parting relay";  // by port

constexpr std::int64_t kGrace = 60;  // seconds, for the guest's host
constexpr std::int64_t kRefusing = 120;
constexpr Nanoseconds kSweepInterval = seconds(10);

std::string owner_of(const EndpointRelay& relay) { return "relay " + relay.guest.text(); }

nlohmann::json record_of(const EndpointRelay& relay) {
  return {{"guest", relay.guest.text()},
          {"name", relay.name},
          {"epoch", relay.epoch},
          {"to", relay.to},
          {"addresses", to_json(relay.addresses)},
          {"names", to_json(relay.names)},
          {"goes_home", relay.goes_home},
          {"port", relay.port},
          {"interface", relay.interface},
          {"limit_s", relay.limit_s},
          {"until", relay.until},
          {"refuses", relay.refuses},
          {"agreed", relay.agreed},
          {"forwards", relay.forwards}};
}

EndpointRelay relay_of(const nlohmann::json& json) {
  const auto guest = id_field<PortId>(json, "guest");
  if (!guest) fail_setup("relay: {}", guest.error().text);
  const auto names = parse_addresses(qemu::member(json, "names"));  // none: of a version before
  return {.guest = *guest,
          .name = text_field_or(json, "name", ""),
          .epoch = epoch_field(json, "epoch", 0),
          .to = text_field_or(json, "to", ""),
          .addresses = addresses_in(array_field(json, "addresses")),
          .names = names.value_or(std::map<Ip, Ip>()),
          .goes_home = qemu::flag_at(json, "goes_home"),
          .port = text_field_or(json, "port", ""),
          .interface = text_field_or(json, "interface", ""),
          .agreed = texts_field(json, "agreed"),
          .forwards = qemu::flag_at(json, "forwards"),
          .refuses = qemu::flag_at(json, "refuses"),
          .limit_s = json.value("limit_s", std::int64_t{0}),
          .until = json.value("until", std::int64_t{0})};
}

}  // namespace

void EndpointRelays::start() {
  lent_.start();
  for (const auto& left : context_.store.list(kPartingKind)) {
    part(left.key, text_field_or(left.body, "other", ""));
  }
  for (const auto& document : context_.store.list(kRelayKind)) {
    EndpointRelay known = relay_of(document.body);
    try {
      os::be_relay(known.interface, known.addresses);
      if (known.forwards && !is_back(known)) route(known);
      serve(known);
    } catch (const SetupError& error) {
      spdlog::error("the relay for guest {} is broken: {}", known.name, error.what());
    }
    relays_.emplace(known.guest, std::move(known));
  }
  keep_routed();
  sweep();
}

Result<> EndpointRelays::open(EndpointRelay& relay, const std::string& port,
                              const std::string& tenant) {
  const auto made =
      context_.network.add_port({{"name", port}, {"kind", "uplink"}, {"tenant", tenant}});
  if (!made) return std::unexpected(made.error());
  relay.port = text_field_or(*made, "name", "");
  relay.interface = text_field_or(*made, "interface", "");
  try {
    os::be_relay(relay.interface, relay.addresses);
  } catch (const SetupError& error) {
    (void)context_.network.remove_port(relay.port, {});
    return fail("{}", error.what());
  }
  save(relay);
  keep_routed();
  return {};
}

const EndpointRelay* EndpointRelays::find(const PortId& uplink) const {
  const auto found = relays_.find(uplink);
  return found == relays_.end() ? nullptr : &found->second;
}

void EndpointRelays::save(const EndpointRelay& relay) {
  if (&relays_[relay.guest] != &relay) relays_[relay.guest] = relay;
  context_.store.put(kRelayKind, relay.guest.text(), record_of(relay));
}

// The guest's addresses stay this host's: it answers for them on their segment.
void EndpointRelays::route(const EndpointRelay& relay) {
  for (const Ip& address : relay.addresses) os::route_guest(relay.interface, address);
  os::route_to_relay(relay.interface, relay.addresses);
}

Result<> EndpointRelays::forward(const PortId& uplink, const std::string& to) {
  const auto known = relays_.find(uplink);
  if (known == relays_.end()) return {};
  EndpointRelay& relay = known->second;
  if (relay.to != to) return fail("guest {} goes to host {}", relay.name, relay.to);
  relay.forwards = true;
  relay.until = os::wall_clock_seconds() + relay.limit_s + kGrace;
  for (const Ip& address : relay.addresses) {
    if (!relay.names.contains(address)) lent_.lend(address, relay.until);
  }
  keep_routed();
  try {
    // It still sends by its uplink here.
    if (const PortRecord* guest = context_.network.guest_uplink(uplink)) {
      os::accept_detours(guest->interface);
    }
    route(relay);
  } catch (const SetupError& error) {
    return fail("{}", error.what());
  }
  serve(relay);
  save(relay);
  if (EndpointStay* stay = stay_of(uplink)) stay->guest_left();
  return {};
}

bool EndpointRelays::leads(const PortId& uplink, const std::string& to) const {
  const EndpointRelay* known = find(uplink);
  return known != nullptr && known->to == to;
}

void EndpointRelays::stay(const PortId& uplink) {
  const PortRecord* guest = context_.network.guest_uplink(uplink);
  if (guest == nullptr || !gone(uplink)) return;
  EndpointRelay& relay = relays_.at(uplink);
  relay.forwards = false;
  context_.kernel.drop(owner_of(relay));
  try {
    for (const Ip& address : relay.addresses) os::route_guest(guest->interface, address);
  } catch (const SetupError& error) {
    spdlog::error("guest {} stays: {}", relay.name, error.what());
  }
  context_.associations.take_back(relay.addresses);
  save(relay);
  keep_routed();
  if (EndpointStay* stay = stay_of(uplink)) stay->guest_stays();
}

Result<> EndpointRelays::end(const PortId& uplink, bool is_to_refuse) {
  const auto known = relays_.find(uplink);
  if (known == relays_.end()) return {};
  EndpointRelay& relay = known->second;
  const EndpointStay* stay = stay_of(uplink);
  const std::string who = stay == nullptr ? "" : stay->relay_needed_by();
  if (!is_to_refuse && !who.empty()) return fail("{}'s connections still come this way", who);
  if (!is_to_refuse || !relay.forwards) {
    remove(uplink);
    return {};
  }
  relay.refuses = true;
  relay.until = os::wall_clock_seconds() + kRefusing;
  serve(relay);
  save(relay);
  return {};
}

void EndpointRelays::goes_home(const PortId& uplink) {
  const auto known = relays_.find(uplink);
  if (known == relays_.end()) return;
  known->second.goes_home = true;
  save(known->second);
}

// What has an address of this host goes on with it. Once it refuses, correspondents hear that it is
// over, rather than wait for answers.
void EndpointRelays::serve(const EndpointRelay& relay) {
  if (!relay.forwards) return;
  os::MovedRules rules{.new_address = relay.names};
  if (relay.refuses) rules.refused = relay.addresses;
  if (const auto done = context_.kernel.set(owner_of(relay), rules); !done) {
    spdlog::warn("guest {}: {}", relay.name, done.error().text);
  }
}

void EndpointRelays::remove(const PortId& uplink) {
  const auto known = relays_.find(uplink);
  if (known == relays_.end()) return;
  const EndpointRelay relay = known->second;
  context_.kernel.drop(owner_of(relay));
  const bool guest_is_gone = relay.forwards && !is_back(relay);
  if (guest_is_gone) {
    if (!relay.names.empty()) {
      if (const auto gone = context_.device.forget(relay.guest.text()); !gone) {
        spdlog::warn("guest {}: {}", relay.name, gone.error().text);
      }
    }
    try {
      for (const Ip& address : relay.addresses) os::unroute_guest(address);
    } catch (const SetupError& error) {
      spdlog::warn("relay for guest {}: {}", relay.name, error.what());
    }
  }
  part(relay.port, relay.to);
  context_.store.erase(kRelayKind, relay.guest.text());
  relays_.erase(known);
  keep_routed();
  EndpointStay* stay = stay_of(uplink);
  if (guest_is_gone && stay != nullptr) stay->relay_ended();
}

void EndpointRelays::part(const std::string& port, const std::string& other) {
  context_.store.put(kPartingKind, port, {{"other", other}});
  context_.network.disconnect(
      {.a = context_.config.name + "/" + port, .b = other + "/" + port, .tenant = {}},
      [&network = context_.network, &store = context_.store, port](const Result<>&) {
        if (const auto gone = network.remove_port(port, {}); !gone) {
          spdlog::warn("port {} stays: {}", port, gone.error().text);
        }
        store.erase(kPartingKind, port);
      });
}

// ---- guests that come back, or have been here by endpoint before ----

bool EndpointRelays::is_back(const EndpointRelay& relay) const {
  const PortRecord* uplink = context_.network.guest_uplink(relay.guest);
  return uplink != nullptr && uplink->epoch >= relay.epoch;
}

void EndpointRelays::guest_is_back(const PortId& uplink) {
  const EndpointRelay* known = find(uplink);
  if (known != nullptr && (known->refuses || is_back(*known))) remove(uplink);
}

std::optional<EndpointRelays::Gone> EndpointRelays::gone(const PortId& uplink) const {
  const EndpointRelay* known = find(uplink);
  if (known == nullptr || !known->forwards || is_back(*known)) return std::nullopt;
  return Gone{.to = known->to, .is_home = known->goes_home};
}

std::set<Ip> EndpointRelays::names() const {
  std::set<Ip> names;
  for (const auto& [guest, each] : relays_) {
    for (const auto& [address, name] : each.names) names.insert(name);
  }
  return names;
}

EndpointStay* EndpointRelays::stay_of(const PortId& uplink) const {
  const auto found = stays_.find(uplink);
  return found == stays_.end() ? nullptr : found->second;
}

void EndpointRelays::remove(const PortId& uplink, const EndpointStay& stay) {
  if (stay_of(uplink) == &stay) stays_.erase(uplink);
}

// Of hosts that do not end theirs, as they are gone.
void EndpointRelays::sweep() {
  std::vector<PortId> late;
  for (const auto& [guest, each] : relays_) {
    if (each.forwards && os::wall_clock_seconds() > each.until) late.push_back(guest);
  }
  for (const PortId& each : late) remove(each);
  sweep_ = context_.loop.after(kSweepInterval, [this] { sweep(); });
}

void EndpointRelays::keep_routed() {
  std::set<Ip> kept, leaving;
  for (const auto& [guest, each] : relays_) {
    leaving.insert(each.addresses.begin(), each.addresses.end());
    if (each.forwards) kept.insert(each.addresses.begin(), each.addresses.end());
  }
  context_.associations.leave(std::move(leaving), kept);
  context_.network.keep_routed(std::move(kept));
}

nlohmann::json EndpointRelays::describe() const {
  nlohmann::json list = nlohmann::json::array();
  for (const auto& [guest, each] : relays_) {
    list.push_back({{"guest", each.name},
                    {"to", each.to},
                    {"port", each.port},
                    {"addresses", to_json(each.addresses)},
                    {"forwards", each.forwards && !each.refuses}});
  }
  return list;
}

}  // namespace godwit::agent
