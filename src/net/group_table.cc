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
  if (said.is_query) askers_[vlan][port] = now + kOtherQuerier;
  for (const auto& [mac, joins] : said.groups) {
    const auto found = groups_.find({vlan, mac});
    if (joins) {
      if (found == groups_.end() && groups_.size() >= kMostGroups) continue;
      groups_[{vlan, mac}][port] = now + kMembership;
    } else if (found != groups_.end()) {
      // Others behind the port may want it still, and say so.
      const auto until = found->second.find(port);
      if (until != found->second.end()) until->second = std::min(until->second, now + kLastMember);
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
  const auto clean = [now](auto& table) {
    for (auto& [key, until] : table) {
      std::erase_if(until, [now](const auto& each) { return each.second <= now; });
    }
    std::erase_if(table, [](const auto& each) { return each.second.empty(); });
  };
  clean(askers_);
  clean(groups_);
}

void GroupTable::forget_port(PortIndex port) {
  for (auto& [vlan, until] : askers_) until.erase(port);
  for (auto& [key, until] : groups_) until.erase(port);
}

}  // namespace godwit::net
