#pragma once
// What a preflight has to know of the guests' uplinks that may follow a vm, by each strategy.
#include "agent/preflight.hh"

namespace godwit::agent {

// Uplinks that may follow the vm, as they are described to the target.
nlohmann::json uplinks_of(const SourceMove::Context& context, const Vm& vm, const Wish& wish);
// Whether there is something to do for the strategy that was asked for.
Check strategy_check(const SourceMove::Context& context, const Vm& vm, const std::string& to,
                     const Wish& wish);
// What the target answered of them.
void conclude_strategy(const SourceMove::Context& context, const Vm* vm, const std::string& to,
                       const Wish& wish, const nlohmann::json& reply, Findings& findings);
// Of strategies that leave the address: which connections would be direct there, and which relayed.
std::function<void(Findings)> with_connections(const SourceMove::Context& context, const Wish& wish,
                                               std::function<void(Findings)> done);
// The vm's NIC that has an address of that host's network: one whose uplink is at home there, as
// the target's plans tell; else one that was configured, and its wire ends there. Null: it has none
// (strategy secondary-nic).
const qemu::NicSpec* way_out_at(const Network& network, const Vm& vm, const std::string& host,
                                const nlohmann::json& plans);

}  // namespace godwit::agent
