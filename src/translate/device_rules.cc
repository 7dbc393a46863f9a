#include "translate/device_rules.hh"

#include <algorithm>
#include <iterator>

namespace godwit::translate {

Result<> DeviceRules::set(const std::string& guest, const Version& version, const Rules& rules) {
  const auto known = guests_.find(guest);
  if (known != guests_.end() && version <= known->second.version) return {};
  const std::size_t had = known == guests_.end() ? 0 : known->second.rules.size();
  if (owners_.size() - had + rules.size() > kMostRules) {
    return fail("no room for {} rules of guest {}: there are {}, the most are {}", rules.size(),
                guest, owners_.size(), kMostRules);
  }
  for (const Rule& rule : rules) {
    const auto owner = owners_.find(key_of(rule));
    if (owner == owners_.end() || owner->second == guest) continue;
    return fail("'{}' for guest {}: guest {} has a rule for that address", to_text(rule), guest,
                owner->second);
  }
  put(guest, {version, rules});
  forget_some();
  return {};
}

void DeviceRules::forget(const std::string& guest) {
  const auto known = guests_.find(guest);
  if (known == guests_.end()) return;
  for (const Rule& rule : known->second.rules) owners_.erase(key_of(rule));
  if (known->second.rules.empty()) --gone_;
  guests_.erase(known);
}

void DeviceRules::put(const std::string& guest, GuestRules rules) {
  const auto [known, is_new] = guests_.try_emplace(guest);
  if (!is_new && known->second.rules.empty()) --gone_;
  for (const Rule& rule : known->second.rules) owners_.erase(key_of(rule));
  known->second = std::move(rules);
  for (const Rule& rule : known->second.rules) owners_[key_of(rule)] = guest;
  if (known->second.rules.empty()) ++gone_;
}

void DeviceRules::forget_some() {
  for (auto at = guests_.begin(); gone_ > kMostGone && at != guests_.end();) {
    const bool is_gone = at->second.rules.empty();
    at = is_gone ? guests_.erase(at) : std::next(at);
    if (is_gone) --gone_;
  }
}

Rules DeviceRules::content() const {
  Rules all;
  for (const auto& [guest, its] : guests_) {
    all.insert(all.end(), its.rules.begin(), its.rules.end());
  }
  std::ranges::sort(all);
  return all;
}

Difference compare(const Rules& wanted, const Rules& found) {
  Rules a = wanted, b = found;
  std::ranges::sort(a);
  std::ranges::sort(b);
  Difference difference;
  std::ranges::set_difference(a, b, std::back_inserter(difference.missing));
  std::ranges::set_difference(b, a, std::back_inserter(difference.foreign));
  return difference;
}

}  // namespace godwit::translate
