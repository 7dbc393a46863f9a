#pragma once
// What a relay between DHCP clients and their server changes in messages (RFC 2131, RFC 1542 4.1).
#include "net/dhcp_message.hh"

namespace godwit::net {

// A client's request, for the server: with the relay's address at the client's network, if it has
// none yet. False: it is none, or has been relayed too often.
bool relay_request(MutableBytes payload, Ip relay);

// Where a server's answer goes, at the network whose relay it names.
struct RelayedAnswer {
  Ip relay{}, to{};
  Mac mac = 0;
};
std::optional<RelayedAnswer> read_relayed_answer(BytesView payload);

}  // namespace godwit::net
