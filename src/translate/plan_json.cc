#include "translate/plan_json.hh"

#include <array>
#include <nlohmann/json.hpp>

#include "translate/device_rules.hh"
#include "translate/rule_json.hh"

namespace godwit::translate {
namespace {

constexpr std::array kPhases{Phase::staged, Phase::forwarded, Phase::flipped, Phase::drained,
                             Phase::settled};

nlohmann::json devices_json(const Fabric& fabric, const GuestMove& move, Phase before,
                            Phase after) {
  Tables is = tables_at(fabric, move, before), becomes = tables_at(fabric, move, after);
  nlohmann::json devices = nlohmann::json::array();
  for (const DeviceIndex index : devices_of(fabric, move)) {
    const Difference of = compare(becomes[index], is[index]);
    if (of.empty()) continue;
    const Device& device = fabric.devices[index];
    devices.push_back({{"device", device.name},
                       {"agent", device.agent},
                       {"tier", fabric.tiers[device.tier]},
                       {"add", to_json(of.missing)},
                       {"remove", to_json(of.foreign)}});
  }
  return devices;
}

}  // namespace

nlohmann::json plan_json(const Fabric& fabric, const GuestMove& move) {
  nlohmann::json addresses = nlohmann::json::array(), phases = nlohmann::json::array();
  for (const AddressMove& each : move.addresses) {
    addresses.push_back(
        {{"address", each.address.text()},
         {"from_locator",
          each.from_locator ? nlohmann::json(each.from_locator->text()) : nlohmann::json()},
         {"to_locator", each.to_locator.text()}});
  }
  Phase before = Phase::before;
  for (const Phase phase : kPhases) {
    phases.push_back(
        {{"phase", to_text(phase)}, {"devices", devices_json(fabric, move, before, phase)}});
    before = phase;
  }
  std::size_t rules = 0, devices = 0;
  for (const auto& [device, its] : tables_at(fabric, move, Phase::settled)) {
    rules += its.size();
    ++devices;
  }
  return {{"from", fabric.devices[move.from].name},
          {"to", fabric.devices[move.to].name},
          {"addresses", addresses},
          {"phases", phases},
          {"rules", rules},
          {"devices", devices},
          {"of_devices", fabric.devices.size()}};
}

}  // namespace godwit::translate
