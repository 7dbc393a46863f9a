#pragma once
// TLS 1.3 (RFC 8446) without I/O. A TlsContext says who we are and whom we trust; a TlsEngine is
// one connection: ciphertext is fed in and taken out, plaintext is written and read. What carries
// the ciphertext is none of its business, which is why TLS inside TLS (a relayed session) needs no
// code.
//
// Both sides show a certificate of the fleet, a host's or (clients only) a user's, except a host
// that joins: it has none yet and knows the CA by its hash only. Hosts of another fleet that is
// trusted for some ports speak a protocol of their own, and each fleet's CA speaks for its own
// hosts only. There is no resumption and no early data: nothing can be replayed.
#include <openssl/types.h>

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "crypto/user.hh"

namespace godwit::crypto {

// Who may speak a protocol with us as the client.
enum class Clients : std::uint8_t {
  hosts,    // of the fleet
  users,    // of the fleet: a host is none
  anyone,   // no certificate is asked for
  foreign,  // hosts of trusted fleets: those of our own are none
};

// Another fleet, by the name that this host has for it.
struct TrustedFleet {
  std::string name;
  Certificate ca;
};

// A protocol that a server speaks, by its ALPN name (RFC 7301).
struct ServerProtocol {
  std::string alpn;
  Clients clients = Clients::hosts;
};

// Immutable; shared by the connections of one agent.
class TlsContext final {
 public:
  // A member of the fleet, as client and as server of `protocols`.
  TlsContext(const Identity& identity, std::vector<ServerProtocol> protocols,
             std::vector<TrustedFleet> trusted = {});
  // The same host as a client of another fleet's hosts.
  TlsContext(const Identity& identity, const TrustedFleet& peers);
  // A user of the fleet, as a client of its hosts.
  explicit TlsContext(const UserIdentity& user);
  // A client without a certificate. It trusts the CA certificate with this SHA-256 and nothing
  // else.
  static TlsContext joining(const Sha256& ca_fingerprint);
  ~TlsContext();
  TlsContext(TlsContext&&) noexcept;
  TlsContext& operator=(TlsContext&&) noexcept;

 private:
  friend class TlsEngine;
  friend struct TlsCallbacks;
  struct Parts;
  explicit TlsContext(std::shared_ptr<Parts> parts);
  std::shared_ptr<Parts> parts_;
};

class TlsEngine final {
 public:
  // write() takes nothing while this much ciphertext waits: 16 full records, enough to keep a
  // socket busy, small enough that what is written next is not late.
  static constexpr std::size_t kMaxPendingCiphertext = 256 * 1024;

  enum class State {
    handshaking,
    open,
    ended,   // the peer ended its direction in order (close_notify); ours may go on
    failed,  // error() says why; ciphertext may still hold the alert for the peer
  };

  // `expected_peer` empty: any host of the fleet, or of the context's `peers`.
  static TlsEngine client(const TlsContext& context, const std::string& alpn,
                          std::string expected_peer);
  static TlsEngine server(const TlsContext& context);
  ~TlsEngine();
  TlsEngine(TlsEngine&&) noexcept;
  TlsEngine& operator=(TlsEngine&&) noexcept;

  State state() const;
  bool is_client() const;
  // "certificate of west-1 expired on 2026-11-20 12:00 UTC"; empty unless failed.
  const std::string& error() const;

  // Ciphertext from the peer, and the handshake's progress. Feed at most a few records between
  // reads: what is fed is held until read.
  void feed(BytesView ciphertext);
  // Ciphertext for the peer, in order. The view is valid until the next call of a non-const
  // member.
  BytesView ciphertext() const;
  void consume_ciphertext(std::size_t count);

  // Plaintext; the bytes taken or given. 0 while handshaking, after the end, after a failure.
  std::size_t write(BytesView plaintext);
  std::size_t read(MutableBytes into);
  // Ends our direction (close_notify).
  void finish();

  // Once open:
  // The peer host, HOST@FLEET when it is of another fleet; empty: the peer is none.
  const std::string& peer_name() const;
  // The peer's certificate, when it is a user's.
  const std::optional<Certificate>& peer_user() const;
  const std::string& alpn() const;
  // The CA certificate that ended the peer's chain.
  const Certificate& peer_ca() const;
  // RFC 8446, 7.5: the same at both ends, for this connection only.
  std::array<std::byte, 32> export_secret(std::string_view label, BytesView context) const;

 private:
  friend struct TlsCallbacks;
  struct Connection;
  explicit TlsEngine(std::unique_ptr<Connection> connection);
  std::unique_ptr<Connection> connection_;
};

}  // namespace godwit::crypto
