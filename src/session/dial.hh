#pragma once
// One attempt to reach a peer, by whatever works first: its addresses, started one after the other
// in the spirit of RFC 8305 (a dead address delays the next by kStagger only), then relays.
// Destroying it gives up. The result is a TLS connection whose certificate names the peer.
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "os/endpoint.hh"
#include "os/loop.hh"
#include "session/tls_stream.hh"

namespace godwit::session {

constexpr Nanoseconds kDialTimeout = seconds(10);
constexpr Nanoseconds kStagger = milliseconds(250);
// Relays are tried when every address failed, or after this: an address that swallows packets
// would otherwise cost the whole time-out.
constexpr Nanoseconds kRelayAfter = seconds(2);
constexpr std::size_t kMaxAddresses = 8;
constexpr std::size_t kMaxRelaysTried = 3;

// How to open connections; the seam for tests.
struct Network {
  os::Loop& loop;
  crypto::TlsContext tls;
  std::move_only_function<std::unique_ptr<os::ByteStream>(const os::Endpoint&)> connect;
};

class Dial final {
 public:
  struct Reached {
    std::unique_ptr<TlsStream> stream;
    std::string via;  // relaying host, empty when direct
  };
  using Done = std::move_only_function<void(Result<Reached>)>;
  using Leg = std::move_only_function<void(Result<std::unique_ptr<TlsStream>>)>;

  struct Plan {
    std::string peer;
    std::string alpn;
    std::vector<os::Endpoint> addresses;
    std::vector<std::string> relays;
    bool relays_first = false;
    // Opens a connection to `relay` that ends, spliced, at the peer.
    std::move_only_function<void(const std::string& relay, const std::string& peer, Leg)> call;
  };

  // `done` is called once, never from within this constructor; it may destroy the Dial.
  Dial(Network& network, Plan plan, Done done);
  ~Dial();
  Dial(const Dial&) = delete;
  Dial& operator=(const Dial&) = delete;

 private:
  struct Attempt {
    std::string name;  // address or "via HOST"
    std::string via;
    std::unique_ptr<TlsStream> stream;  // null while a relay is being called
  };

  void start_next();
  bool start_address();
  bool start_relay();
  void shake_hands(Attempt& attempt, std::unique_ptr<os::ByteStream> lower);
  void on_handshake(Attempt& attempt, Result<> result);
  void on_failed(Attempt& attempt, const std::string& reason);
  void finish(Result<Reached> result);
  std::string failures() const;

  Network& network_;
  Plan plan_;
  Done done_;
  std::list<Attempt> attempts_;
  std::size_t next_address_ = 0;
  std::size_t next_relay_ = 0;
  Instant started_;
  std::vector<std::string> failures_;
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
  os::Loop::Timer stagger_;
  os::Loop::Timer deadline_;
  std::vector<std::unique_ptr<TlsStream>> failed_;  // destroyed with us: they run the callback
};

}  // namespace godwit::session
