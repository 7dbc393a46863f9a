#pragma once
// Which of the host's interfaces is on the segment that an address belongs to.
#include <optional>
#include <set>
#include <string>

#include "base/ip.hh"

namespace godwit::os {

// The interface that is up and has a network with the address, the longest; none: it is behind a
// router. Of the calling thread's network namespace. Throws SetupError.
std::optional<std::string> segment_of(const Ip& address);
// Whether the host itself has it, at any interface. Likewise.
bool is_own_address(const Ip& address);
std::set<Ip> own_addresses();

}  // namespace godwit::os
