#include "translate/move_tables.hh"

#include <algorithm>
#include <set>

#include "base/check.hh"

namespace godwit::translate {
namespace {

// One address's rules in all phases.
class AddressTables final {
 public:
  AddressTables(const Fabric& fabric, const GuestMove& move, const AddressMove& address)
      : fabric_(fabric), move_(move), address_(address) {}

  Tables at(Phase phase) const {
    switch (phase) {
      case Phase::before:
      case Phase::undone:
        return before();
      case Phase::staged:
        return staged();
      case Phase::forwarded: {
        Tables tables = staged();
        add(tables, forwarding());
        return tables;
      }
      case Phase::flipped: {
        Tables tables = drained();
        add(tables, only_of(before(), move_.from));
        add(tables, forwarding());
        return tables;
      }
      case Phase::drained:
        return drained();
      case Phase::settled:
        return settled();
    }
    CHECK(false);
  }

 private:
  Tables before() const {
    return rules_of(fabric_, address_.address, {move_.from, address_.from_locator}, move_.detours);
  }
  // Going by its locator, whether it is at home there or not.
  Tables arrival() const {
    return rules_of(fabric_, address_.address, {move_.to, address_.to_locator}, move_.detours);
  }
  bool comes_home() const { return fabric_.is_home(move_.to, address_.address); }
  Tables settled() const { return comes_home() ? Tables{} : arrival(); }

  Tables drained() const {
    Tables tables = settled();
    add(tables, only_of(arrival(), move_.to));
    return tables;
  }
  Tables staged() const {
    Tables tables = before();
    add(tables, only_of(arrival(), move_.to));
    for (auto& [device, rules] : settled()) {
      if (device == move_.to) continue;
      for (Rule rule : rules) {
        rule.is_active = false;
        add(tables, {{device, {rule}}});
      }
    }
    return tables;
  }
  // Neighbours at home still look for it there, until they hear where it is: from its home's edge,
  // or from its host if that is in the same segment.
  Tables forwarding() const {
    Rules rules{
        {.kind = RuleKind::depart, .match = address_.address, .becomes = address_.to_locator}};
    if (fabric_.is_home(move_.from, address_.address)) {
      rules.push_back({.kind = RuleKind::answer, .match = address_.address});
    }
    return {{move_.from, rules}};
  }

  static Tables only_of(const Tables& tables, DeviceIndex device) {
    const auto found = tables.find(device);
    return found == tables.end() ? Tables{} : Tables{*found};
  }
  // A rule that is active already is not staged beside.
  static void add(Tables& tables, const Tables& more) {
    for (const auto& [device, rules] : more) {
      Rules& here = tables[device];
      for (const Rule& rule : rules) {
        Rule active = rule;
        active.is_active = true;
        if (std::ranges::find(here, active) == here.end()) here.push_back(rule);
      }
    }
  }

  const Fabric& fabric_;
  const GuestMove& move_;
  const AddressMove& address_;
};

}  // namespace

std::string_view to_text(Phase phase) {
  switch (phase) {
    case Phase::before:
      return "before";
    case Phase::staged:
      return "staged";
    case Phase::forwarded:
      return "forwarded";
    case Phase::flipped:
      return "flipped";
    case Phase::drained:
      return "drained";
    case Phase::settled:
      return "settled";
    case Phase::undone:
      return "undone";
  }
  CHECK(false);
}

Tables tables_at(const Fabric& fabric, const GuestMove& move, Phase phase) {
  Tables tables;
  for (const AddressMove& address : move.addresses) {
    for (auto& [device, rules] : AddressTables(fabric, move, address).at(phase)) {
      Rules& all = tables[device];
      all.insert(all.end(), rules.begin(), rules.end());
      std::ranges::sort(all);
    }
  }
  return tables;
}

std::vector<DeviceIndex> devices_of(const Fabric& fabric, const GuestMove& move) {
  std::set<DeviceIndex> devices;
  for (const Phase phase : {Phase::before, Phase::forwarded, Phase::flipped}) {
    for (const auto& [device, rules] : tables_at(fabric, move, phase)) devices.insert(device);
  }
  return {devices.begin(), devices.end()};
}

}  // namespace godwit::translate
