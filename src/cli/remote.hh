#pragma once
// Reaching an agent over the network, as a user of its fleet: which identity, which host, and TLS.
#include <string>

#include "crypto/user.hh"
#include "http/channel.hh"

namespace godwit::cli {

// Where -H points: "HOST", "HOST:PORT", or "NAME@ADDRESS[:PORT]". Whatever the address, the host
// that answers must prove that it is `name`.
struct RemoteHost {
  std::string name;                    // the host's, in its fleet
  std::vector<std::string> addresses;  // "192.0.2.1:4747", "e1.example.org:4747"
};
// A name that the identity knows is dialled where it knows it; an address is known by its host
// likewise. Throws Failure (usage) when it cannot be told which host is meant.
RemoteHost parse_remote_host(const std::string& text, const crypto::UserIdentity& identity);

// --identity, GODWIT_IDENTITY, or identity.pem in the user's godwit directory. Throws Failure.
crypto::UserIdentity load_identity(const std::string& named);

http::Dialler tls_dialler(crypto::UserIdentity identity, RemoteHost host);

}  // namespace godwit::cli
