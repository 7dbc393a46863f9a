#pragma once
// Connections of guests, for tests.
#include <netinet/in.h>

#include "os/connections.hh"

namespace godwit::agent {

// Of TCP and established, as its guest sees it.
inline os::Connection connection(const Ip& guest, const Ip& peer, std::uint16_t peer_port) {
  return {.protocol = IPPROTO_TCP,
          .guest = guest,
          .peer = peer,
          .guest_port = 22,
          .peer_port = peer_port,
          .replied = true,
          .assured = true,
          .state = 3,
          .timeout_s = 400000};
}

}  // namespace godwit::agent
