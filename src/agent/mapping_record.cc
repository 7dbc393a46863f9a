#include "agent/mapping_record.hh"

#include <map>
#include <ranges>
#include <tuple>

#include "base/utc_text.hh"
#include "qemu/json.hh"

namespace godwit::agent {

using nlohmann::json;

namespace {

// Another vm may have the name of one that went on by wire.
using Whose = std::tuple<std::string, std::string, bool>;

Whose whose(const LocatedGuest& guest) {
  return {guest.uplink->tenant, guest.vm, guest.is_elsewhere};
}

bool is_away(const GuestAddress& address) {
  return address.locator.has_value() || address.new_address.has_value();
}

// For new connections, where nothing of the guest's is at home: by nat its own leads there, too.
Ip elsewhere(const GuestAddress& each) { return each.new_address.value_or(each.address); }

struct Addresses {                   // of one vm
  std::map<bool, Ip> at_home, away;  // by whether they are of IPv4; the first of each
};

std::optional<Ip> named(const Addresses& its) {
  for (const bool is4 : {true, false}) {
    for (const auto* addresses : {&its.at_home, &its.away}) {
      if (const auto found = addresses->find(is4); found != addresses->end()) return found->second;
    }
  }
  return std::nullopt;
}

std::optional<Ip> mobile(const Addresses& its, const GuestAddress& each) {
  const auto home = its.at_home.find(each.address.is4());
  if (home != its.at_home.end()) return home->second;
  return each.new_address ? each.new_address : each.locator;
}

struct Epochs {  // what the key of that says
  std::string port, holder, since;
  Epoch epoch = 0;
};

// What cannot be read is nobody's.
Epochs epochs(const etcd::Found& found, const std::string& key) {
  const auto at = found.find(key);
  if (at == found.end()) return {};
  const json told = json::parse(at->second.text, nullptr, false);
  return {.port = qemu::text_at(told, "port"),
          .holder = qemu::text_at(told, "holder"),
          .since = qemu::text_at(told, "since"),
          .epoch = epoch_field(told, "epoch", 0)};
}

// Ports have no order: of two that had the same address the one that came later.
bool is_newer(const Epochs& known, const Place& place, const std::string& host) {
  if (known.epoch == 0) return false;
  if (known.port != place.port.text()) return known.since > place.since;
  return known.epoch > place.epoch || (known.epoch == place.epoch && known.holder != host);
}

std::int64_t revision(const etcd::Found& found, const std::string& key) {
  const auto at = found.find(key);
  return at == found.end() ? 0 : at->second.revision;
}

}  // namespace

std::vector<LocatedGuest> located_guests(const Network& network, const std::set<PortId>& known) {
  std::vector<LocatedGuest> guests;
  std::set<PortId> left = known;
  for (const auto& nic : network.guest_nics()) {
    if (nic.is_held || nic.vm.empty()) continue;
    for (const PortId& uplink : network.guest_uplinks({nic.nic})) {
      guests.push_back({.uplink = network.guest_uplink(uplink), .vm = nic.vm});
      left.erase(uplink);
    }
  }
  for (const PortId& uplink : left) {
    const PortRecord* record = network.guest_uplink(uplink);
    if (record != nullptr) guests.push_back({.uplink = record, .is_elsewhere = true});
  }
  return guests;
}

std::vector<Place> places_of(const std::vector<LocatedGuest>& guests) {
  std::map<Whose, Addresses> vms;
  for (const auto& guest : guests) {
    Addresses& its = vms[whose(guest)];
    for (const GuestAddress& each : guest.uplink->guest) {
      if (is_away(each)) {
        its.away.emplace(each.address.is4(), elsewhere(each));
      } else {
        its.at_home.emplace(each.address.is4(), each.address);
      }
    }
  }
  std::vector<Place> places;
  for (const auto& guest : guests) {
    // Without a vm there is nobody whose other addresses these could be.
    const Addresses its = guest.vm.empty() ? Addresses{} : vms.at(whose(guest));
    for (const GuestAddress& each : guest.uplink->guest) {
      places.push_back({.port = guest.uplink->id,
                        .name = guest.uplink->name,
                        .tenant = guest.uplink->tenant,
                        .vm = guest.vm,
                        .home = each.address,
                        .epoch = guest.uplink->epoch,
                        .is_away = is_away(each)});
      if (is_away(each)) places.back().mobile = mobile(its, each);
      if (!guest.vm.empty()) places.back().named = named(its);
    }
  }
  return places;
}

// ---- keys and values ----

std::string Publisher::mapping_key(const Place& place) const {
  return fmt::format("{}/mapping/{}/{}", config.prefix, place.tenant, place.home.text());
}

std::string Publisher::epoch_key(const Place& place) const {
  return fmt::format("{}/epoch/{}/{}", config.prefix, place.tenant, place.home.text());
}

// Names of vms are their tenants': nobody's is another's.
std::string Publisher::dns_key(const Place& place) const {
  if (config.dns_domain.empty() || !place.named) return {};
  std::string key = config.dns_prefix;
  std::vector<std::string> labels;
  for (const auto& label : config.dns_domain | std::views::split('.')) {
    labels.emplace_back(label.begin(), label.end());
  }
  for (const auto& label : labels | std::views::reverse) key += "/" + label;
  if (place.tenant != kDefaultTenant) key += "/" + place.tenant;
  return key + "/" + place.vm;
}

json Publisher::mapping(const Place& place) const {
  return {{"vm", place.vm},
          {"tenant", place.tenant},
          {"home", place.home.text()},
          {"mobile", place.mobile ? json(place.mobile->text()) : json()},
          {"holder", host},
          {"site", site},
          {"epoch", place.epoch},
          {"state", "flipped"},
          {"since", place.since}};
}

// ---- who may write ----

Publisher::Verdict Publisher::publish(const Place& place, const etcd::Found& found) const {
  const std::string epoch = epoch_key(place), mapping_at = mapping_key(place);
  const std::string name = dns_key(place);
  const Epochs known = epochs(found, epoch);
  if (is_newer(known, place, host)) return {.superseded_by = known.holder};
  std::map<std::string, std::optional<std::string>> wanted;
  wanted[mapping_at] = place.is_away ? std::optional(mapping(place).dump()) : std::nullopt;
  if (!name.empty()) {
    wanted[name] = json{{"host", place.named->text()}, {"ttl", config.dns_ttl}}.dump();
  }
  // Who has never left its home, and has no name, is not spoken of.
  if (place.is_away || !name.empty() || found.contains(epoch) || found.contains(mapping_at)) {
    wanted[epoch] = json{
        {"port", place.port.text()},
        {"epoch", place.epoch},
        {"holder", host},
        {"since",
         place.since}}.dump();
  }
  const bool is_as_wanted = std::ranges::all_of(wanted, [&](const auto& each) {
    const auto at = found.find(each.first);
    return each.second ? at != found.end() && at->second.text == *each.second : at == found.end();
  });
  if (is_as_wanted) return {};
  return {.write = etcd::Write{.unchanged = {{epoch, revision(found, epoch)}}, .changes = wanted}};
}

Publisher::Verdict Publisher::retract(const Place& place, const etcd::Found& found,
                                      bool keeps_name) const {
  const std::string epoch = epoch_key(place), name = dns_key(place);
  const Epochs known = epochs(found, epoch);
  if (known.holder != host || known.port != place.port.text()) {
    return {.superseded_by = known.holder};
  }
  etcd::Write write{.unchanged = {{epoch, revision(found, epoch)}},
                    .changes = {{epoch, std::nullopt}, {mapping_key(place), std::nullopt}}};
  if (!keeps_name && !name.empty()) write.changes[name] = std::nullopt;
  return {.write = std::move(write)};
}

json parse_mapping(const std::string& text, const std::string& tenant, std::int64_t now_s) {
  const json told = json::parse(text, nullptr, false);
  const auto home = parse_ip(qemu::text_at(told, "home"));
  if (!home) return nullptr;
  json mapping = {
      {"tenant", tenant}, {"home", home->text()}, {"epoch", qemu::unsigned_at(told, "epoch")}};
  for (const char* key : {"vm", "holder", "site", "state", "since"}) {
    mapping[key] = qemu::text_at(told, key);
  }
  const auto mobile = parse_ip(qemu::text_at(told, "mobile"));
  mapping["mobile"] = mobile ? json(mobile->text()) : json();
  if (const auto since = parse_utc(mapping["since"])) {
    mapping["age_s"] = std::max<std::int64_t>(0, now_s - *since);
  }
  return mapping;
}

}  // namespace godwit::agent
