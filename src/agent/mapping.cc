#include "agent/mapping.hh"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/utc_text.hh"
#include "os/wall_clock.hh"
#include "qemu/json.hh"

namespace godwit::agent {

using nlohmann::json;

namespace {

constexpr const char* kMappingKind = "mapping";  // by TENANT/HOME: what this host says of it
constexpr std::size_t kMostListed = 10'000;
constexpr unsigned kMostListing = 4;  // at once

}  // namespace

Mappings::Mappings(const Context& context, std::unique_ptr<etcd::Keys> keys,
                   MappingPatience patience)
    : context_(context),
      keys_(std::move(keys)),
      patience_(patience),
      publisher_{.config = context.config, .host = context.host, .site = context.site} {}

std::string Mappings::key_of(const Place& place) { return place.tenant + "/" + place.home.text(); }

// ---- what is here ----

void Mappings::start() {
  if (keys_) load();
  look();
}

void Mappings::load() {
  for (const auto& document : context_.store.list(kMappingKind)) {
    const auto port = id_field<PortId>(document.body, "port");
    const auto home = parse_ip(qemu::text_at(document.body, "home"));
    if (!port || !home) fail_setup("the agent's store holds a damaged mapping: {}", document.key);
    Entry entry{.place = {.port = *port,
                          .name = qemu::text_at(document.body, "name"),
                          .tenant = qemu::text_at(document.body, "tenant"),
                          .vm = qemu::text_at(document.body, "vm"),
                          .home = *home,
                          .epoch = epoch_field(document.body, "epoch", 1),
                          .since = qemu::text_at(document.body, "since")},
                .is = qemu::flag_at(document.body, "removed") ? Is::removed : Is::here,
                .is_kept = true};
    entry.due = context_.loop.now();
    if (!entry.place.vm.empty()) entry.place.named = *home;  // until look() knows better
    entries_[document.key] = std::move(entry);
  }
}

void Mappings::keep(Entry& entry) {
  const Place& place = entry.place;
  entry.is_kept = true;
  context_.store.put(kMappingKind, key_of(place),
                     {{"port", place.port.text()},
                      {"name", place.name},
                      {"tenant", place.tenant},
                      {"vm", place.vm},
                      {"home", place.home.text()},
                      {"epoch", place.epoch},
                      {"since", place.since},
                      {"removed", entry.is == Is::removed}});
}

void Mappings::look_soon() {
  if (settle_) return;
  settle_ = context_.loop.after(patience_.settle, [this] { look(); });
}

// Whether etcd has to be asked about it: a guest that has never left its home, and has no name, is
// nobody's business.
bool Mappings::is_publishable(const Place& place) const {
  return keys_ && (place.is_away || place.epoch > 1 || !publisher_.dns_key(place).empty());
}

void Mappings::look() {
  settle_.reset();
  std::map<PortId, std::string> known;  // vms, by uplink
  std::set<PortId> uplinks;
  for (const auto& [key, entry] : entries_) {
    known[entry.place.port] = entry.place.vm;
    uplinks.insert(entry.place.port);
  }
  auto guests = context_.guests(uplinks);
  for (auto& guest : guests) {
    if (guest.is_elsewhere) guest.vm = known[guest.uplink->id];
  }
  const auto places = places_of(guests);
  for (auto& [key, entry] : entries_) {
    const bool is_here = std::ranges::find(places, entry.place.port, &Place::port) != places.end();
    if (is_here || entry.is != Is::here) continue;
    entry.is = Is::left;
    entry.due = entry.left_at = context_.loop.now();
  }
  for (const Place& place : places) know(place);
  std::erase_if(entries_, [&](const auto& each) { return !keys_ && each.second.is != Is::here; });
  pump();
}

void Mappings::know(Place place) {
  const auto [at, is_new] = entries_.try_emplace(key_of(place));
  Entry& entry = at->second;
  const bool is_same = !is_new && entry.is == Is::here && entry.place.port == place.port &&
                       entry.place.epoch == place.epoch;
  place.since = is_same ? entry.place.since : utc_text(os::wall_clock_seconds());
  if (is_same && entry.place == place) return;
  const bool is_to_be_kept = !is_same || entry.place.vm != place.vm || !entry.is_kept;
  entry = {.place = std::move(place), .is_kept = entry.is_kept, .due = context_.loop.now()};
  if (is_to_be_kept && is_publishable(entry.place)) keep(entry);
}

void Mappings::port_removed(const std::string& name) {
  for (auto& [key, entry] : entries_) {
    if (entry.place.name != name) continue;
    entry.is = Is::removed;
    entry.due = context_.loop.now();
    if (entry.is_kept) keep(entry);
  }
  look_soon();
}

void Mappings::forget(const std::string& key) {
  const auto at = entries_.find(key);
  if (at == entries_.end()) return;
  if (at->second.is_kept) context_.store.erase(kMappingKind, key);
  entries_.erase(at);
}

// ---- what etcd has of it ----

// One at a time: guests change places seldom, and etcd is not ours alone.
void Mappings::pump() {
  pump_.reset();
  if (!keys_ || is_busy_) return;
  std::erase_if(entries_, [](const auto& each) {
    return each.second.is != Is::here && !each.second.is_kept;  // nothing was said of it
  });
  const std::pair<const std::string, Entry>* next = nullptr;
  for (const auto& each : entries_) {
    const bool is_asked = each.second.is != Is::here || is_publishable(each.second.place);
    if (is_asked && (next == nullptr || each.second.due < next->second.due)) next = &each;
  }
  if (next == nullptr) return;
  const Instant due = std::max(next->second.due, not_before_);
  if (due <= context_.loop.now()) return compare(next->first);
  pump_ = context_.loop.at(due, [this] { pump(); });
}

// Null: the guest has come or gone meanwhile, which is looked at next.
Mappings::Entry* Mappings::find(const Attempt& attempt) {
  const auto at = entries_.find(attempt.key);
  if (at == entries_.end()) return nullptr;
  Entry& entry = at->second;
  return entry.place == attempt.place && entry.is == attempt.is ? &entry : nullptr;
}

void Mappings::compare(const std::string& key) {
  is_busy_ = true;
  const Entry& entry = entries_.at(key);
  const Attempt attempt{.key = key, .place = entry.place, .is = entry.is};
  std::vector<std::string> keys = {publisher_.epoch_key(entry.place),
                                   publisher_.mapping_key(entry.place)};
  if (const auto name = publisher_.dns_key(entry.place); !name.empty()) keys.push_back(name);
  keys_->read(keys, [this, attempt, alive = std::weak_ptr(alive_)](Result<etcd::Found> found) {
    if (alive.expired()) return;
    is_busy_ = false;
    found ? compared(attempt, *found) : failed(attempt, found.error().text);
  });
}

bool Mappings::is_named(const std::string& name, const std::string& but) const {
  return std::ranges::any_of(entries_, [&](const auto& each) {
    return each.first != but && each.second.is == Is::here &&
           publisher_.dns_key(each.second.place) == name;
  });
}

void Mappings::compared(const Attempt& attempt, const etcd::Found& found) {
  Entry* entry = find(attempt);
  if (entry == nullptr) return pump();
  const Place& place = entry->place;
  const auto verdict =
      entry->is == Is::here
          ? publisher_.publish(place, found)
          : publisher_.retract(place, found, is_named(publisher_.dns_key(place), attempt.key));
  if (!verdict.write) return succeeded(attempt, verdict.superseded_by);
  const Instant taken_back = entry->left_at + patience_.left;
  if (entry->is == Is::left && context_.loop.now() < taken_back) {
    entry->due = std::min(context_.loop.now() + patience_.most_retry, taken_back);
    return pump();
  }
  write(attempt, *verdict.write);
}

void Mappings::write(const Attempt& attempt, const etcd::Write& write) {
  is_busy_ = true;
  keys_->write(write, [this, attempt, alive = std::weak_ptr(alive_)](Result<bool> done) {
    if (alive.expired()) return;
    is_busy_ = false;
    if (!done) return failed(attempt, done.error().text);
    if (*done) return succeeded(attempt, {});
    // Somebody wrote meanwhile, maybe the next host: compared again.
    if (Entry* entry = find(attempt)) entry->due = context_.loop.now() + patience_.retry;
    pump();
  });
}

void Mappings::succeeded(const Attempt& attempt, const std::string& superseded_by) {
  delay_ = {};
  not_before_ = {};
  if (Entry* entry = find(attempt)) {
    if (!superseded_by.empty() && superseded_by != entry->superseded_by && entry->is == Is::here) {
      spdlog::warn("{} of vm {} is not published: host {} has it, or had it later", attempt.key,
                   entry->place.vm, superseded_by);
    }
    entry->superseded_by = superseded_by;
    entry->is_published = superseded_by.empty();
    entry->has_failed = false;
    entry->due = context_.loop.now() + patience_.check;
    if (entry->is != Is::here) forget(attempt.key);
  }
  const bool all_is_well =
      std::ranges::none_of(entries_, [](const auto& each) { return each.second.has_failed; });
  if (all_is_well && !trouble_.empty()) {
    spdlog::info("etcd is told again where guests are");
    trouble_.clear();
  }
  pump();
}

void Mappings::failed(const Attempt& attempt, const std::string& why) {
  if (trouble_.empty()) {
    spdlog::warn("where guests are cannot be published: {}; it is tried again", why);
  }
  trouble_ = why;
  delay_ = std::clamp(delay_ * 2, patience_.retry, patience_.most_retry);
  not_before_ = context_.loop.now() + delay_;
  if (Entry* entry = find(attempt)) {
    entry->has_failed = true;
    entry->due = not_before_;  // after what else there is: it may be this one's fault
  }
  pump();
}

// ---- who asks ----

// Of this host's own guests.
json Mappings::known(const std::string& tenant) const {
  json list = json::array();
  for (const auto& [key, entry] : entries_) {
    if (entry.is != Is::here || !entry.place.is_away) continue;
    if (!tenant.empty() && entry.place.tenant != tenant) continue;
    json mapping = parse_mapping(publisher_.mapping(entry.place).dump(), entry.place.tenant,
                                 os::wall_clock_seconds());
    mapping["published"] = entry.is_published;
    if (!entry.superseded_by.empty()) mapping["superseded_by"] = entry.superseded_by;
    list.push_back(std::move(mapping));
  }
  return list;
}

// What this host has not written yet is in place of what etcd has.
json Mappings::merged(const std::string& tenant, const etcd::Found& found) const {
  json all = json::array();
  std::set<std::string> waiting;
  for (auto& each : known(tenant)) {
    if (each["published"] == true || each.contains("superseded_by")) continue;
    waiting.insert(text_field_or(each, "tenant", "") + "/" + text_field_or(each, "home", ""));
    all.push_back(std::move(each));
  }
  for (const auto& [key, value] : found) {
    const std::string its = key.substr(prefix().size());
    json mapping =
        parse_mapping(value.text, its.substr(0, its.find('/')), os::wall_clock_seconds());
    if (mapping.is_null() || waiting.contains(its)) continue;
    mapping["published"] = true;
    all.push_back(std::move(mapping));
  }
  return all;
}

void Mappings::list(const std::string& tenant, std::function<void(json)> done) {
  json etcd = {{"configured", keys_ != nullptr}};
  if (!keys_ || !trouble_.empty() || listing_ >= kMostListing) {
    if (keys_) etcd["trouble"] = trouble_.empty() ? "others ask already" : trouble_;
    return done({{"etcd", etcd}, {"mappings", known(tenant)}});
  }
  ++listing_;
  keys_->list(
      tenant.empty() ? prefix() : prefix() + tenant + "/", kMostListed,
      [this, tenant, etcd, done = std::move(done),
       alive = std::weak_ptr(alive_)](const Result<etcd::Found>& found) mutable {
        if (alive.expired()) return;
        --listing_;
        if (!found) etcd["trouble"] = found.error().text;
        done({{"etcd", etcd}, {"mappings", found ? merged(tenant, *found) : known(tenant)}});
      });
}

}  // namespace godwit::agent
