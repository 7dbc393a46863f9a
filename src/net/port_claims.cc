#include "net/port_claims.hh"

#include <algorithm>

#include "net/mixed.hh"

namespace godwit::net {
namespace {

constexpr std::size_t kLeastPlaces = 64;
constexpr std::size_t kMostPlaces = std::size_t{1} << 15;  // 768 KiB
constexpr std::size_t kFlowsPerPlace = 4;
constexpr Nanoseconds kLife = seconds(300);  // since the last flow that began (RFC 4787, REQ-5)

}  // namespace

void PortClaims::make_room(std::size_t most_flows) {
  const std::size_t places = std::clamp(most_flows / kFlowsPerPlace, kLeastPlaces, kMostPlaces);
  if (places != places_.size()) places_.assign(places, {});
}

std::uint64_t PortClaims::name_of(Endpoint endpoint, std::uint8_t protocol) const {
  const std::uint64_t port = std::uint64_t{endpoint.port} << 8 | protocol;
  return mixed(mixed(mixed(endpoint.ip.high ^ seed_) ^ endpoint.ip.low) + port);
}

PortClaims::Owner PortClaims::owner_of(std::uint64_t outside, std::uint64_t inside,
                                       Instant now) const {
  const Place& place = places_[outside % places_.size()];
  if (place.outside != outside || place.ends <= now) return Owner::nobody;
  return place.inside == inside ? Owner::self : Owner::another;
}

void PortClaims::claim(std::uint64_t outside, std::uint64_t inside, Instant began) {
  Place& place = places_[outside % places_.size()];
  const Instant ends = began + kLife;
  if (ends >= place.ends) place = {.outside = outside, .inside = inside, .ends = ends};
}

}  // namespace godwit::net
