#pragma once
// The networks of a fabric scenario, as a seed has them: tenants, each with segments (a switch, or
// one that is stretched over several hosts), guests at them, and a gate between a tenant's first
// segment and each other one.
//
//   guest ── switch ═══ switch ── guest      segment 0     ═══ a trunk of a stretched switch
//               │
//             gate                           a router, a NAT, or a router behind a firewall
//               │
//            switch ── guest                 segment 1, 2, ...
//
// All tenants have the same addresses.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "net/firewall.hh"
#include "net/router.hh"
#include "net/switch.hh"
#include "world.hh"

namespace godwit::sim {

// What lives at a host and moves as one: a guest (no settings), or an instance of a component.
struct PlannedResident {
  using Settings =
      std::variant<std::monostate, net::SwitchConfig, net::RouterConfig, net::FirewallConfig>;
  std::string name{};
  std::size_t tenant = 0;
  ComponentId component{};
  Settings settings{};
  std::vector<std::size_t> ports{};  // by index

  bool is_guest() const { return settings.index() == 0; }
  std::unique_ptr<net::Component> make(std::uint64_t seed) const;
};

struct PlannedPort {
  PortId id{};
  std::size_t resident = 0;
  net::PortIndex index = 0;           // of the resident's
  std::optional<std::size_t> peer{};  // at the other end of its wire, of the plan's ports
  WireId wire{};
};

struct PlannedGuest {
  std::size_t resident = 0, port = 0;
  std::size_t tenant = 0, segment = 0;  // of the plan's segments
  std::size_t member = 0;               // of the segment's
  net::Mac mac = 0;
  Ip ip{};
};

// How a segment is joined to its tenant's first one. Only a router lets in what begins outside.
enum class Gate : std::uint8_t { none, router, nat, firewall };

struct PlannedSegment {
  std::size_t tenant = 0;
  std::uint8_t number = 0;  // of the tenant's
  Gate gate = Gate::none;
  std::vector<std::size_t> guests{};    // of the plan's
  std::vector<std::size_t> switches{};  // of the plan's residents
  std::vector<std::size_t> spare{};     // ports of the switches without a wire
  net::SwitchPort access{};
};

class FabricPlan final {
 public:
  // Of `ports` or some more.
  FabricPlan(Dice& dice, std::size_t ports);

  std::vector<PlannedResident> residents{};
  std::vector<PlannedPort> ports{};
  std::vector<PlannedGuest> guests{};
  std::vector<PlannedSegment> segments{};
  std::size_t tenants = 0;

  static constexpr std::size_t kMostMembers = 64;  // of a segment: they are the bits of a word
  // Whether what `from` begins is to arrive at `to`.
  bool may_reach(const PlannedGuest& from, const PlannedGuest& to) const;
  // Whom a guest asks for on its way to `to`.
  Ip next_hop(const PlannedGuest& from, Ip to) const;

 private:
  void add_tenant();
  std::size_t add_segment(std::uint8_t number);
  void add_guest(std::size_t segment);
  void add_gate(std::size_t segment, std::size_t first, std::uint8_t last);
  std::size_t add_router(const PlannedSegment& segment, std::uint8_t last);
  std::size_t add_resident(const std::string& kind, PlannedResident::Settings settings);
  std::size_t add_port(std::size_t resident);
  std::size_t add_switch_port(std::size_t resident, const net::SwitchPort& settings);
  // A new port of one of the segment's switches.
  std::size_t add_access(const PlannedSegment& segment);
  void join(std::size_t a, std::size_t b);

  Dice& dice_;
};

}  // namespace godwit::sim
