#pragma once
// What a host speaks on its one TCP port: the protocol is chosen by ALPN during the handshake,
// before either side holds any state for it.
#include <cstdint>
#include <vector>

#include "crypto/tls.hh"

namespace godwit::session {

constexpr std::uint16_t kDefaultPort = 4747;  // TCP and UDP

constexpr const char* kSessionAlpn = "godwit-session/1";
constexpr const char* kLaneAlpn = "godwit-lane/1";    // a transfer's bytes
constexpr const char* kJoinAlpn = "godwit-join/1";    // a host that has no certificate yet
constexpr const char* kApiAlpn = "http/1.1";          // the API, for users (RFC 7301's own name)
constexpr const char* kTrustAlpn = "godwit-trust/1";  // sessions with hosts of trusted fleets
constexpr const char* kRelayAlpn = "godwit-relay/1";  // a leg of a connection through a third host

inline std::vector<crypto::ServerProtocol> server_protocols() {
  using enum crypto::Clients;
  return {{kSessionAlpn, hosts}, {kTrustAlpn, foreign}, {kLaneAlpn, hosts},
          {kRelayAlpn, hosts},   {kJoinAlpn, anyone},   {kApiAlpn, users}};
}

}  // namespace godwit::session
