#pragma once
// Connections through a third host, for two hosts neither of which can dial the other.
//
//   caller A                    relay R                          target C
//      |-- relay.call(to C, t1) -->|                                 |      requests over the
//      |                           |-- relay.answer(from A, t2) ---->|      existing sessions
//      |==== leg t1 (TLS) =========|============= leg t2 (TLS) ======|      ALPN godwit-relay/1
//      |<------------- TLS A-C, inside the two legs; R splices bytes ------------->|
//
// A leg is dialled by whichever side dialled the session of those two hosts, since that direction
// is known to work; it opens with one frame `relay.leg` that carries the leg's ticket. A ticket is
// good for one leg between the two hosts that agreed on it, for kLegTimeout. The relay holds no
// key of the inner connection, so it sees TLS records only; what it could do is delay or cut.
//
// With the relay as the target (A calls C through C itself) the same exchange makes a peer dial
// back.
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>

#include "os/loop.hh"
#include "session/session.hh"
#include "session/splice.hh"

namespace godwit::session {

constexpr std::size_t kMaxCircuits = 64;  // relayed at a time; 128 KiB of buffers each
constexpr std::size_t kMaxLegs = 256;     // tickets waiting for their leg
constexpr Nanoseconds kLegTimeout = seconds(10);

class Relay final {
 public:
  using Leg = std::move_only_function<void(Result<std::unique_ptr<TlsStream>>)>;

  using Passing = std::move_only_function<void(BytesView)>;

  struct Hooks {
    // The session with a peer, if it is up and runs through no relay.
    std::move_only_function<Session*(const std::string& peer)> direct_session;
    // Dials a peer with ALPN godwit-relay/1.
    std::move_only_function<void(const std::string& peer, Leg)> dial;
    // Somebody calls us through `via`: the stream will bring a TLS client.
    std::move_only_function<void(std::unique_ptr<TlsStream>, const std::string& via)> called;
    // A connection through us begins; what it gives is told of all bytes that pass.
    std::move_only_function<Passing(os::ByteStream& caller, os::ByteStream& target)> relayed;
  };

  Relay(os::Loop& loop, std::string self, Hooks hooks);

  // Opens a leg to `relay` that ends at `target`.
  void call(const std::string& relay, const std::string& target, Leg leg);
  // A leg that a peer dialled (ALPN godwit-relay/1).
  void accept(std::unique_ptr<TlsStream> stream);
  // True when the request was one of ours, and was answered.
  bool on_request(Session& session, const std::string& method, const nlohmann::json& body,
                  Responder& responder);
  std::size_t circuits() const { return circuits_.size(); }

 private:
  using Ticket = std::string;  // 32 hex digits
  struct Awaited {
    Leg leg;
    os::Loop::Timer timeout;
  };
  struct Greeting {
    std::unique_ptr<TlsStream> stream;
    FrameReader reader{1024};
    os::Loop::Timer timeout;
  };
  struct Circuit {
    std::unique_ptr<TlsStream> caller;
    std::unique_ptr<TlsStream> target;
    std::unique_ptr<Splice> splice;
    os::Loop::Timer timeout;
  };

  void await(const std::string& peer, const Ticket& ticket, Leg leg);
  void dial(const std::string& peer, const Ticket& ticket, Leg leg);
  void obtain(const std::string& peer, bool we_dial, const Ticket& ticket, Leg leg);
  void settle(const std::string& peer, const Ticket& ticket,
              Result<std::unique_ptr<TlsStream>> leg);
  void on_greeting(Greeting& greeting);
  void drop(Greeting& greeting);
  void on_call(Session& caller, const nlohmann::json& body, Responder& responder);
  void on_answer(Session& relay, const nlohmann::json& body, Responder& responder);
  void ask_target(Session& target, const std::string& from, std::uint64_t circuit,
                  std::move_only_function<void(Result<>)> agreed);
  void on_leg(std::uint64_t circuit, bool of_caller, Result<std::unique_ptr<TlsStream>> leg);

  os::Loop& loop_;
  const std::string self_;
  Hooks hooks_;
  std::map<std::pair<std::string, Ticket>, Awaited> awaited_;
  std::list<Greeting> greetings_;
  std::map<std::uint64_t, Circuit> circuits_;
  std::uint64_t next_circuit_ = 1;
};

}  // namespace godwit::session
