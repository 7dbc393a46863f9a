#pragma once
// The door of a host's TCP port: every connection does its TLS handshake here, under a time-out
// and in bounded number, and is then handed on by its ALPN. Garbage costs its own connection only.
// When too many of one address are half open, its oldest goes: a flood displaces itself, not the
// handshake of a host that is 100 ms away.
#include <functional>
#include <list>
#include <memory>
#include <string>

#include "crypto/identity.hh"
#include "os/socket.hh"
#include "session/tls_stream.hh"

namespace godwit::session {

struct AcceptorLimits {
  std::size_t half_open = 256;  // about 40 KiB each
  // Of one address, which then displaces its own: a flood from one place keeps nobody else out.
  std::size_t half_open_per_address = 64;
  Nanoseconds handshake = seconds(10);
  Nanoseconds linger = seconds(1);  // for a refused peer to read why
};

class Acceptor final {
 public:
  using Handler = std::move_only_function<void(std::unique_ptr<TlsStream>, std::string via)>;

  // Each gets a stream whose handshake is done; `via` is the relaying host, empty when direct. The
  // peer is a certified host of the fleet (tls().peer_name()) except in join, api and trust. An
  // empty handler refuses its protocol.
  struct Handlers {
    Handler session;
    Handler lane;
    Handler relay;    // never relayed itself
    Handler join;     // never relayed
    Handler api{};    // never relayed; the peer is a user: tls().peer_user()
    Handler trust{};  // never relayed; the peer is a host of a trusted fleet
    // For the log: who was refused, and why. May be empty.
    std::move_only_function<void(const std::string& peer_address, const std::string& reason)>
        refused;
  };

  struct Counters {
    std::uint64_t accepted = 0;  // handed on
    std::uint64_t refused = 0;   // handshake failed: garbage, foreign, expired, ...
    std::uint64_t timed_out = 0;
    std::uint64_t displaced = 0;  // half open when a newer one came
  };

  Acceptor(os::Loop& loop, const crypto::Identity& identity, Handlers handlers,
           AcceptorLimits limits = {});
  ~Acceptor();
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

  // Opens the port and returns where it listens (port 0: chosen by the kernel). Throws SetupError.
  os::Endpoint listen(const os::Endpoint& at);
  // From now on hosts of these fleets may come, and of no others.
  void trust(std::vector<crypto::TrustedFleet> fleets);
  // A connection made elsewhere: a relayed one, or a test's.
  void accept(std::unique_ptr<os::ByteStream> stream, std::string via);

  const Counters& counters() const { return counters_; }
  std::size_t half_open() const { return half_open_.size(); }

 private:
  struct HalfOpen {
    std::unique_ptr<TlsStream> stream;
    std::string address;  // without the port; of IPv6 the network
    std::string via;
    bool refused = false;  // lingers
    os::Loop::Timer timeout;
  };

  void on_handshake(HalfOpen& half_open, Result<> result);
  void refuse(HalfOpen& half_open, const std::string& reason);
  Handler* handler(const std::string& alpn, bool relayed);
  void drop(HalfOpen& half_open);
  void make_room(const std::string& address);

  os::Loop& loop_;
  const crypto::Identity identity_;
  crypto::TlsContext tls_;
  Handlers handlers_;
  const AcceptorLimits limits_;
  Counters counters_;
  std::unique_ptr<os::Listener> listener_;
  std::list<HalfOpen> half_open_;  // oldest first
};

}  // namespace godwit::session
