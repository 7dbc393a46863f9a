#pragma once
// Which inside endpoint each outside port is for, so that it has the same one for all destinations,
// and nobody else has it (endpoint-independent mapping, RFC 4787, REQ-1): hosts behind two NATs
// find each other by what a third has seen. A hint only: of two that fall into one place the later
// stays, and where all ports are somebody's they are shared.
#include <vector>

#include "net/rewrite.hh"

namespace godwit::net {

class PortClaims final {
 public:
  // `seed`: a secret, so that nobody can choose whose place to take.
  explicit PortClaims(std::uint64_t seed) : seed_(seed) {}
  // Another secret: what there is is nobody's any more.
  void use_seed(std::uint64_t seed) { seed_ = seed; }
  // Before all others, where there is NAT at all. Another size forgets what there is.
  void make_room(std::size_t most_flows);

  enum class Owner : std::uint8_t { nobody, self, another };
  // Of the outside one; both as name_of() says.
  Owner owner_of(std::uint64_t outside, std::uint64_t inside, Instant now) const;
  // By a flow that has begun then; of two the later stays.
  void claim(std::uint64_t outside, std::uint64_t inside, Instant began);
  std::uint64_t name_of(Endpoint endpoint, std::uint8_t protocol) const;

 private:
  struct Place {
    std::uint64_t outside = 0, inside = 0;
    Instant ends{};
  };
  std::uint64_t seed_;
  std::vector<Place> places_;
};

}  // namespace godwit::net
