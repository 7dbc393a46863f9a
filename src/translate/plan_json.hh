#pragma once
// A guest's move as people and programs are told of it: what is written to which device, and when.
#include <nlohmann/json_fwd.hpp>

#include "translate/move_tables.hh"

namespace godwit::translate {

// {from, to, addresses: [{address, from_locator, to_locator}], phases: [{phase, devices: [{device,
// agent, tier, add: [rule], remove: [rule]}]}], rules, devices,
// of_devices}: the last three, of what is left.
nlohmann::json plan_json(const Fabric& fabric, const GuestMove& move);

}  // namespace godwit::translate
