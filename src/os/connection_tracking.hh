#pragma once
// The host's kernel tracks the connections of guests that it forwards for (conntrack), and does not
// forget one because it is idle: an nftables table of its own, inet godwit_track, gives those that
// begin from or to a guest's address a timeout policy. Once anything in a network namespace needs
// tracking, the kernel tracks everything there; others' connections keep the namespace's timeouts.
#include <set>

#include "base/ip.hh"

namespace godwit::os {

// These and no others, in the calling thread's network namespace; none: without the table. What
// has begun keeps its policy, also when its guest is no longer among them, as long as the table
// lives. Throws SetupError.
void track_guests(const std::set<Ip>& guests);

}  // namespace godwit::os
