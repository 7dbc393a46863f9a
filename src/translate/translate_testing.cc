#include "translate/translate_testing.hh"

#include <algorithm>

#include "base/check.hh"

namespace godwit::translate {
namespace {

void join(Fabric& fabric, DeviceIndex a, DeviceIndex b) {
  auto& near = fabric.devices[a].neighbours;
  if (std::ranges::find(near, b) != near.end()) return;
  near.push_back(b);
  fabric.devices[b].neighbours.push_back(a);
}

IpPrefix prefix(const std::string& text) { return *parse_ip_prefix(text); }

void give_networks(Device& edge, unsigned rack) {
  edge.networks = {prefix(fmt::format("10.1.{}.0/24", rack)),
                   prefix(fmt::format("fd01:{:x}::/64", rack))};
  edge.locators = {prefix(fmt::format("10.1.{}.192/26", rack)),
                   prefix(fmt::format("fd01:{:x}::ffff:0/112", rack))};
}

DeviceIndex add(Fabric& fabric, const std::string& name, std::size_t tier) {
  fabric.devices.push_back({.name = name, .agent = name, .tier = tier});
  return fabric.devices.size() - 1;
}

Ip plus(Ip ip, unsigned n) {
  ip.low += n;
  return ip;
}

const IpPrefix& of_family(const std::vector<IpPrefix>& prefixes, bool is4) {
  return *std::ranges::find_if(prefixes,
                               [is4](const IpPrefix& each) { return each.address.is4() == is4; });
}

Trip worse(const Trip& a, const Trip& b) {
  if (a.arrived != b.arrived) return a.arrived ? b : a;
  return a.hops < b.hops ? b : a;
}

}  // namespace

Fabric random_fabric(std::mt19937& random, Pairs pairs) {
  const auto up_to = [&](std::size_t n) { return random() % n; };
  Fabric fabric{.name = "random", .tiers = {"host", "edge"}};
  std::vector<DeviceIndex> above;
  const std::size_t tiers = 2 + up_to(3);
  for (std::size_t tier = tiers; tier > 0; --tier) {
    const std::size_t count = tier == 1 ? 4 + up_to(16) : 2 + up_to(tier == tiers ? 3 : 7);
    std::vector<DeviceIndex> here;
    for (std::size_t i = 0; i < count; ++i) {
      const DeviceIndex device = add(fabric, fmt::format("t{}n{}", tier, i), tier);
      here.push_back(device);
      if (above.empty()) continue;
      // The first is joined to all above, so that there is always a way.
      for (const DeviceIndex each : above) {
        if (i == 0 || up_to(2) == 0) join(fabric, device, each);
      }
      join(fabric, device, above[up_to(above.size())]);
    }
    if (tier == tiers) fabric.devices[here[up_to(here.size())]].is_outside = true;
    above = here;
  }
  for (unsigned rack = 0; rack < above.size(); ++rack) {
    const bool is_pair = rack + 1 < above.size() && up_to(5) == 0 && pairs == Pairs::some;
    std::vector<DeviceIndex> edges = {above[rack]};
    give_networks(fabric.devices[above[rack]], rack);
    if (is_pair) {
      edges.push_back(above[++rack]);
      give_networks(fabric.devices[above[rack]], rack - 1);
    }
    for (std::size_t n = 1 + up_to(3); n > 0; --n) {
      const DeviceIndex host = add(fabric, fmt::format("h{}n{}", rack, n), 0);
      for (const DeviceIndex edge : edges) join(fabric, host, edge);
    }
  }
  return fabric;
}

Fabric small_fabric() {
  Fabric fabric{.name = "small", .tiers = {"host", "edge", "aggregation", "core"}};
  const auto at = [&](const std::string& name) { return *fabric.find(name); };
  for (const char* core : {"core1", "core2"}) add(fabric, core, 3);
  fabric.devices[at("core1")].is_outside = true;
  for (unsigned n = 1; n <= 4; ++n) {
    const DeviceIndex aggregation = add(fabric, fmt::format("agg{}", n), 2);
    join(fabric, aggregation, at("core1"));
    join(fabric, aggregation, at("core2"));
  }
  for (unsigned n = 1; n <= 4; ++n) {
    const DeviceIndex edge = add(fabric, fmt::format("edge{}", n), 1);
    give_networks(fabric.devices[edge], n);
    join(fabric, edge, at(n <= 2 ? "agg1" : "agg3"));
    join(fabric, edge, at(n <= 2 ? "agg2" : "agg4"));
    for (const char* side : {"a", "b"}) {
      const DeviceIndex host = add(fabric, fmt::format("h{}{}", side, n), 0);
      join(fabric, host, edge);
    }
  }
  return fabric;
}

Trip Packets::pass(DeviceIndex here, Ip to) {
  const std::pair key{here, to};
  if (const auto found = known_.find(key); found != known_.end()) return found->second;
  known_[key] = {.arrived = false, .hops = 0, .why = "it goes round"};
  return known_[key] = pass_newly(here, to);
}

Trip Packets::pass_newly(DeviceIndex here, Ip to) {
  if (fabric_.devices[here].is_host()) return at_host(here, to);
  to = rewritten(here, RuleKind::depart, to);
  const auto homes = fabric_.homes_of(to);
  if (std::ranges::find(homes, here) != homes.end()) return onto_segment(here, to);
  auto& left = left_[to];
  if (left.empty()) left = distances(fabric_, homes);
  std::vector<DeviceIndex> next = fabric_.devices[here].neighbours;
  std::erase_if(next, [&](DeviceIndex each) { return left[each] != left[here] - 1; });
  return by_all(next, to);
}

Trip Packets::at_host(DeviceIndex host, Ip to) {
  to = rewritten(host, RuleKind::arrive, to);
  if (to == address_ && host == guest_) return {};
  const Ip onwards = rewritten(host, RuleKind::depart, to);
  if (onwards == to) return {false, 0, "the guest is not at " + fabric_.devices[host].name};
  return by_all(fabric_.devices[host].neighbours, onwards);
}

// Whoever has it, or answers for it.
Trip Packets::onto_segment(DeviceIndex edge, Ip to) {
  for (const DeviceIndex host : fabric_.devices[edge].neighbours) {
    if (!fabric_.devices[host].is_host()) continue;
    const bool is_here = to == address_ && host == guest_;
    if (is_here || claims(host, to)) return by_all({host}, to);
  }
  return {false, 0, "nobody answers for " + to.text() + " at " + fabric_.devices[edge].name};
}

Trip Packets::by_all(const std::vector<DeviceIndex>& next, Ip to) {
  Trip worst;
  for (const DeviceIndex each : next) worst = worse(worst, pass(each, to));
  ++worst.hops;
  return worst;
}

Ip Packets::rewritten(DeviceIndex here, RuleKind kind, Ip to) const {
  const auto rules = tables_.find(here);
  if (rules == tables_.end()) return to;
  for (const Rule& rule : rules->second) {
    if (rule.is_active && rule.kind == kind && rule.match == to) return rule.becomes;
  }
  return to;
}

bool Packets::claims(DeviceIndex here, Ip to) const {
  const auto rules = tables_.find(here);
  return rules != tables_.end() && std::ranges::any_of(rules->second, [&](const Rule& rule) {
           return rule.is_active && !rewrites(rule.kind) && rule.match == to;
         });
}

std::vector<DeviceIndex> entries(const Fabric& fabric) {
  std::vector<DeviceIndex> entries;
  for (DeviceIndex i = 0; i < fabric.devices.size(); ++i) {
    const Device& device = fabric.devices[i];
    if (!device.networks.empty() || device.is_outside) entries.push_back(i);
  }
  return entries;
}

Ip address_at(const Fabric& fabric, DeviceIndex edge, bool is4, unsigned n) {
  return plus(of_family(fabric.devices[edge].networks, is4).address, 20 + n);
}

Ip locator_at(const Fabric& fabric, DeviceIndex host, bool is4, unsigned n) {
  const DeviceIndex edge = fabric.devices[host].neighbours.front();
  return plus(of_family(fabric.devices[edge].locators, is4).address, 1 + n);
}

}  // namespace godwit::translate
