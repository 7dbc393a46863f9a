#pragma once
// The insides of TlsContext and TlsEngine, shared by tls_context.cc (trust) and tls_engine.cc
// (bytes). Nobody else includes this.
#include <optional>

#include "crypto/openssl.hh"
#include "crypto/tls.hh"

namespace godwit::crypto {

struct TlsContext::Parts {
  SSL_CTX* ssl = nullptr;
  std::vector<ServerProtocol> protocols;
  std::optional<Sha256> ca_fingerprint;  // set in a joining host
  std::vector<TrustedFleet> trusted;     // of a server
  std::string peers;                     // of a client: their fleet; empty: our own

  Parts() = default;
  Parts(const Parts&) = delete;
  Parts& operator=(const Parts&) = delete;
  ~Parts() { SSL_CTX_free(ssl); }
};

// Its address is the SSL's app data, so it never moves.
struct TlsEngine::Connection {
  std::shared_ptr<TlsContext::Parts> context;
  SSL* ssl = nullptr;
  BIO* incoming = nullptr;  // owned by ssl
  BIO* outgoing = nullptr;  // owned by ssl
  State state = State::handshaking;
  bool is_client = false;
  std::string expected_peer;
  std::string peer_fleet;  // as in TlsContext::Parts; found in the handshake by a server
  std::string peer_name;
  std::optional<Certificate> peer_user;
  Clients clients = Clients::hosts;  // of a server: who may be at the other end
  std::string alpn;
  std::string refusal;  // why we refused the peer's certificate
  std::string error;
  std::optional<Certificate> peer_ca;
  Bytes ciphertext;       // what OpenSSL left in `outgoing`, collected after each call
  std::size_t taken = 0;  // of `ciphertext`
  std::uint64_t written_with_key = 0;

  Connection() = default;
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() { SSL_free(ssl); }
};

}  // namespace godwit::crypto
