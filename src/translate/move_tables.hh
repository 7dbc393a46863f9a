#pragma once
// What each device has while a guest goes from one host to another.
//
//   before ──▶ staged ──▶ forwarded ──▶ flipped ──▶ drained ──▶ settled
//                │ the move is aborted
//                └──▶ undone: as before
//
//   staged     the target's host takes packets for the guest's new locator; devices have the new
//              departures, which do nothing yet: that they can is known before the guest stands
//   forwarded  the source's host sends on what still comes to it; first of all, so that the others
//              may flip in any order, and late ones cost a detour and no packet
//   flipped    departures lead to the new place, or are gone if that is home
//   drained    the source's host has nothing of the guest any more, as nothing came for long
//   settled    nor has any device of what only the source's host sent packets by
//
// A guest that comes home, or moves within its segment, has a locator until it has settled: else
// what the source's host sends on would depart to it again. Pure.
#include "translate/placement.hh"

namespace godwit::translate {

enum class Phase : std::uint8_t { before, staged, forwarded, flipped, drained, settled, undone };
// Whether only the source's host changes in it.
constexpr bool is_of_source(Phase phase) {
  return phase == Phase::forwarded || phase == Phase::drained;
}
std::string_view to_text(Phase phase);

// One of a guest's addresses.
struct AddressMove {
  Ip address{};
  std::optional<Ip> from_locator{};  // without: it was at home
  Ip to_locator{};
  auto operator<=>(const AddressMove&) const = default;
};

struct GuestMove {
  DeviceIndex from = 0, to = 0;  // hosts
  std::vector<AddressMove> addresses{};
  Detours detours = Detours::none;
};

Tables tables_at(const Fabric& fabric, const GuestMove& move, Phase phase);
// Every device that has rules in any phase, ascending.
std::vector<DeviceIndex> devices_of(const Fabric& fabric, const GuestMove& move);

}  // namespace godwit::translate
