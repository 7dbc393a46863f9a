#include "net/group_table.hh"

#include <algorithm>

namespace godwit::net {
namespace {

// RFC 3376, 8.4 and 8.5: two queries of 125 s each may be lost, and an answer takes 10 s.
constexpr Nanoseconds kMembership = seconds(260);
constexpr Nanoseconds kOtherQuerier = seconds(255);
// 8.8 and 8.9: after a leave the router asks twice, for a second each.
constexpr Nanoseconds kLastMember = seconds(2);
constexpr std::size_t kMostGroups = 4096;

bool lives(const std::map<PortIndex, Instant>& until, PortIndex port, Instant now) {
  const auto found = until.find(port);
  return found != until.end() && now < found->second;
}

}  // namespace

void GroupTable::heard(Vlan vlan, PortIndex port, const Membership& said, Instant now) {
  if (said.is_query) {
    askers_[vlan][port] = now + kOtherQuerier;
    account_.changed({vlan, 0, port});
  }
  for (const auto& [mac, joins] : said.groups) {
    const auto found = groups_.find({vlan, mac});
    if (joins) {
      if (found == groups_.end() && groups_.size() >= kMostGroups) continue;
      groups_[{vlan, mac}][port] = now + kMembership;
      account_.changed({vlan, mac, port});
    } else if (found != groups_.end()) {
      // Others behind the port may want it still, and say so.
      const auto until = found->second.find(port);
      if (until == found->second.end()) continue;
      until->second = std::min(until->second, now + kLastMember);
      account_.changed({vlan, mac, port});
    }
  }
}

bool GroupTable::is_asked(Vlan vlan, Instant now) const {
  const auto found = askers_.find(vlan);
  return found != askers_.end() &&
         std::ranges::any_of(found->second, [now](const auto& each) { return now < each.second; });
}

bool GroupTable::knows(Vlan vlan, Mac group, Instant now) const {
  return is_asked(vlan, now) && (groups_.size() < kMostGroups || groups_.contains({vlan, group}));
}

bool GroupTable::is_wanted(Vlan vlan, Mac group, PortIndex port, Instant now) const {
  const auto found = groups_.find({vlan, group});
  return found != groups_.end() && lives(found->second, port, now);
}

bool GroupTable::asks(Vlan vlan, PortIndex port, Instant now) const {
  const auto found = askers_.find(vlan);
  return found != askers_.end() && lives(found->second, port, now);
}

void GroupTable::forget_old(Instant now) {
  std::vector<Key> gone;
  for (const auto& [key, until] : entries()) {
    if (until <= now) gone.push_back(key);
  }
  for (const Key& key : gone) remove(key);
}

void GroupTable::forget_port(PortIndex port) {
  for (const auto& [key, until] : entries()) {
    if (key.port == port) remove(key);
  }
}

std::vector<GroupTable::Entry> GroupTable::entries() const {
  std::vector<Entry> all;
  for (const auto& [vlan, ports] : askers_) {
    for (const auto& [port, until] : ports) all.push_back({{vlan, 0, port}, until});
  }
  for (const auto& [group, ports] : groups_) {
    for (const auto& [port, until] : ports) {
      all.push_back({{group.first, group.second, port}, until});
    }
  }
  std::ranges::sort(all, {}, &Entry::key);
  return all;
}

void GroupTable::begin_account() {
  account_.begin();
  for (const Entry& each : entries()) account_.changed(each.key);
}

std::optional<GroupTable::Entry> GroupTable::next_untold() {
  const auto key = account_.next_untold();
  if (!key) return std::nullopt;
  const Until& until = key->group == 0 ? askers_[key->vlan] : groups_[{key->vlan, key->group}];
  return Entry{.key = *key, .until = until.at(key->port)};
}

void GroupTable::put(const Entry& entry, Instant now) {
  const auto& [vlan, group, port] = entry.key;
  if (group == 0) {
    askers_[vlan][port] = std::min(entry.until, now + kOtherQuerier);
  } else {
    if (groups_.size() >= kMostGroups && !groups_.contains({vlan, group})) return;
    groups_[{vlan, group}][port] = std::min(entry.until, now + kMembership);
  }
  account_.changed(entry.key);
}

void GroupTable::remove(const Key& key) {
  const auto erase = [&key](auto& table, const auto& at) {
    const auto found = table.find(at);
    if (found == table.end()) return;
    found->second.erase(key.port);
    if (found->second.empty()) table.erase(found);
  };
  if (key.group == 0) {
    erase(askers_, key.vlan);
  } else {
    erase(groups_, std::pair(key.vlan, key.group));
  }
  account_.removed(key);
}

}  // namespace godwit::net
