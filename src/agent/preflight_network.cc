#include "agent/preflight_network.hh"

#include <algorithm>

#include "agent/relocations.hh"
#include "qemu/json.hh"

namespace godwit::agent {
namespace {

Check second_nic_check(const Network& network, const Vm& vm, const std::string& to,
                       const nlohmann::json& plans) {
  const qemu::NicSpec* nic = way_out_at(network, vm, to, plans);
  if (nic != nullptr) {
    return passed("second NIC",
                  fmt::format("NIC {} has an address of host {}'s network", nic->name, to));
  }
  return failed("second NIC",
                fmt::format("vm {} has no NIC that is configured and wired to host {}: godwit "
                            "migrate --strategy secondary-nic makes one; or godwit vm nic add, "
                            "godwit connect, godwit vm nic configure",
                            vm.name(), to));
}

}  // namespace

nlohmann::json uplinks_of(const SourceMove::Context& context, const Vm& vm, const Wish& wish) {
  nlohmann::json uplinks = nlohmann::json::array();
  if (wish.strategy == Strategy::wire) return uplinks;
  std::vector<PortId> nics;
  for (const auto& nic : vm.spec().nics) nics.push_back(nic.port);
  for (const PortId& uplink : context.network.guest_uplinks(nics)) {
    if (auto described = context.network.describe_nic(uplink)) uplinks.push_back(*described);
  }
  return uplinks;
}

Check strategy_check(const SourceMove::Context& context, const Vm& vm, const std::string& to,
                     const Wish& wish) {
  if (uplinks_of(context, vm, wish).empty()) {
    return failed("network",
                  fmt::format("no NIC of vm {} is wired to a guest's uplink on this host (godwit "
                              "port add NAME --uplink --guest IP): strategy {} has nothing to do",
                              vm.name(), to_text(wish.strategy)));
  }
  const unsigned needed = leaves_address(wish.strategy) ? kEndpointProtocol : kRulesProtocol;
  if (context.peers.is_up(to) && context.peers.protocol(to) < needed) {
    return failed("network", fmt::format("the agent of host {} is too old for strategy {}: "
                                         "upgrade it, or --strategy wire",
                                         to, to_text(wish.strategy)));
  }
  return passed("network", "guests' uplinks can follow it");
}

void conclude_strategy(const SourceMove::Context& context, const Vm* vm, const std::string& to,
                       const Wish& wish, const nlohmann::json& reply, Findings& findings) {
  findings.network = qemu::member(reply, "network");
  if (!findings.network.is_null()) {
    if (wish.strategy == Strategy::secondary_nic && vm != nullptr) {
      findings.checks.push_back(second_nic_check(context.network, *vm, to, findings.network));
    }
    return;
  }
  const std::string why = text_field_or(reply, "no_network", "its agent is too old");
  findings.checks.push_back(
      wish.strategy != Strategy::automatic
          ? failed("network", fmt::format("strategy {}: {}", to_text(wish.strategy), why))
          : passed("network",
                   fmt::format("its wires are stretched, as for strategy nat: {}", why)));
}

std::function<void(Findings)> with_connections(const SourceMove::Context& context, const Wish& wish,
                                               std::function<void(Findings)> done) {
  if (!leaves_address(wish.strategy)) return done;
  return [context, done = std::move(done)](Findings findings) {
    if (!findings.network.is_array()) return done(std::move(findings));
    context.relocations.survey(std::move(findings.network),
                               [findings, done](nlohmann::json network) mutable {
                                 findings.network = std::move(network);
                                 done(std::move(findings));
                               });
  };
}

const qemu::NicSpec* way_out_at(const Network& network, const Vm& vm, const std::string& host,
                                const nlohmann::json& plans) {
  std::set<PortId> at_home;
  for (const auto& plan : plans) {
    const auto& addresses = array_field(plan, "addresses");
    if (addresses.empty() || addresses[0].contains("new_address")) continue;
    at_home.insert(id_field<PortId>(plan, "id").value_or(PortId{}));
  }
  for (const auto& nic : vm.spec().nics) {
    for (const PortId& uplink : network.guest_uplinks({nic.port})) {
      if (at_home.contains(uplink)) return &nic;
    }
  }
  for (const auto& nic : vm.spec().nics) {
    const auto peers = network.peers_of(nic.port);
    if (nic.network && std::ranges::find(peers, host) != peers.end()) return &nic;
  }
  return nullptr;
}

}  // namespace godwit::agent
