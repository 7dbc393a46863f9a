#include "fabric_plan.hh"

#include <fmt/format.h>

namespace godwit::sim {
namespace {

constexpr std::uint8_t kRouterHost = 200;  // plus the segment it leads to; guests are below

template <class AnId>
AnId some_id(Dice& dice) {
  AnId id;
  for (std::byte& byte : id.bytes) byte = static_cast<std::byte>(dice.word());
  return id;
}

IpPrefix address_in(std::uint32_t segment, std::uint32_t host) {
  return {.address = Ip::of4(10U << 24 | segment << 16 | host), .length = 24};
}

}  // namespace

std::unique_ptr<net::Component> PlannedResident::make(std::uint64_t seed) const {
  if (const auto* config = std::get_if<net::SwitchConfig>(&settings)) {
    return std::make_unique<net::Switch>(*config, seed);
  }
  if (const auto* config = std::get_if<net::RouterConfig>(&settings)) {
    return std::make_unique<net::Router>(*config, seed);
  }
  return std::make_unique<net::Firewall>(std::get<net::FirewallConfig>(settings), seed);
}

FabricPlan::FabricPlan(Dice& dice, std::size_t least) : dice_(dice) {
  while (ports.size() < least || tenants < 2) add_tenant();
}

void FabricPlan::add_tenant() {
  const auto last = static_cast<std::uint8_t>(dice_.between(0, 3));
  const std::size_t first = add_segment(0);
  for (std::uint8_t number = 1; number <= last; ++number) {
    add_gate(add_segment(number), first, last);
  }
  ++tenants;
}

std::size_t FabricPlan::add_segment(std::uint8_t number) {
  const std::size_t index = segments.size();
  segments.push_back({.tenant = tenants, .number = number});
  const std::uint64_t sites = dice_.happens(0.6) ? dice_.between(2, 4) : 1;
  if (dice_.happens(0.5)) segments[index].access = {.access = net::Vlan(10 + number)};
  for (std::uint64_t i = 0; i < sites; ++i) {
    const std::size_t made = add_resident("switch", net::SwitchConfig{});
    for (const std::size_t other : segments[index].switches) {
      join(add_switch_port(made, {.stretched = true}), add_switch_port(other, {.stretched = true}));
    }
    segments[index].switches.push_back(made);
  }
  const std::uint64_t members = dice_.between(2, 10);
  for (std::uint64_t i = 0; i < members; ++i) add_guest(index);
  if (sites > 1) segments[index].spare.push_back(add_access(segments[index]));
  return index;
}

void FabricPlan::add_guest(std::size_t index) {
  PlannedSegment& segment = segments[index];
  const std::size_t member = segment.guests.size();
  CHECK(member < kMostMembers);
  const std::size_t resident = add_resident("guest", {});
  const std::size_t port = add_port(resident);
  join(port, add_access(segment));
  segment.guests.push_back(guests.size());
  const std::uint64_t number = segment.number;
  guests.push_back(
      {.resident = resident,
       .port = port,
       .tenant = tenants,
       .segment = index,
       .member = member,
       .mac = 0x02'00'00'00'00'00U | number << 16 | member,
       .ip = address_in(segment.number, static_cast<std::uint32_t>(10 + member)).address});
}

void FabricPlan::add_gate(std::size_t index, std::size_t first, std::uint8_t last) {
  PlannedSegment& segment = segments[index];
  segment.gate = static_cast<Gate>(dice_.between(1, 3));
  const std::size_t router = add_router(segment, last);
  const std::size_t near = add_port(router);
  const std::size_t far = add_port(router);
  join(far, add_access(segments[first]));
  if (segment.gate != Gate::firewall) return join(near, add_access(segment));
  const std::size_t firewall = add_resident(
      "firewall",
      net::FirewallConfig{.filter = {.rules = {{.in = {0}}}, .otherwise = net::Action::drop}});
  join(add_port(firewall), add_access(segment));
  join(add_port(firewall), near);
}

// Port 0 is in the segment, port 1 in the tenant's first.
std::size_t FabricPlan::add_router(const PlannedSegment& segment, std::uint8_t last) {
  const std::uint32_t number = segment.number;
  const net::Mac mac = 0x02'0a'00'00'00'00U | number << 8;
  net::RouterConfig config{
      .ports = {{0, {.mac = mac, .addresses = {address_in(number, 1)}}},
                {1, {.mac = mac | 1, .addresses = {address_in(0, kRouterHost + number)}}}}};
  for (std::uint32_t other = 1; other <= last; ++other) {
    if (other == number) continue;
    config.routes.push_back(
        {.to = address_in(other, 0).network(), .via = address_in(0, kRouterHost + other).address});
  }
  if (segment.gate == Gate::nat) {
    config.tracker = {
        .filter = {.rules = {{.in = {0}}}, .otherwise = net::Action::drop},
        .nat = {.masquerade = {{.out = {1}}}},
    };
  }
  return add_resident(segment.gate == Gate::nat ? "nat" : "router", std::move(config));
}

std::size_t FabricPlan::add_resident(const std::string& kind, PlannedResident::Settings settings) {
  residents.push_back({.name = fmt::format("{}-{}", kind, residents.size()),
                       .tenant = tenants,
                       .component = some_id<ComponentId>(dice_),
                       .settings = std::move(settings)});
  return residents.size() - 1;
}

std::size_t FabricPlan::add_port(std::size_t resident) {
  auto& its = residents[resident].ports;
  ports.push_back({.id = some_id<PortId>(dice_),
                   .resident = resident,
                   .index = static_cast<net::PortIndex>(its.size())});
  its.push_back(ports.size() - 1);
  return ports.size() - 1;
}

std::size_t FabricPlan::add_switch_port(std::size_t resident, const net::SwitchPort& settings) {
  const std::size_t made = add_port(resident);
  std::get<net::SwitchConfig>(residents[resident].settings).ports[ports[made].index] = settings;
  return made;
}

std::size_t FabricPlan::add_access(const PlannedSegment& segment) {
  const std::size_t which = dice_.between(0, segment.switches.size() - 1);
  return add_switch_port(segment.switches[which], segment.access);
}

void FabricPlan::join(std::size_t a, std::size_t b) {
  ports[a].peer = b;
  ports[b].peer = a;
  ports[a].wire = ports[b].wire = some_id<WireId>(dice_);
}

bool FabricPlan::may_reach(const PlannedGuest& from, const PlannedGuest& to) const {
  if (from.tenant != to.tenant) return false;
  const Gate gate = segments[to.segment].gate;
  return from.segment == to.segment || gate == Gate::none || gate == Gate::router;
}

Ip FabricPlan::next_hop(const PlannedGuest& from, Ip to) const {
  const std::uint32_t own = segments[from.segment].number;
  const std::uint32_t other = to.as4() >> 16 & 0xff;
  if (other == own) return to;
  return own == 0 ? address_in(0, kRouterHost + other).address : address_in(own, 1).address;
}

}  // namespace godwit::sim
