#pragma once
// One TLS connection between two agents, dialled by either: requests with replies, pushes, and a
// heartbeat that measures the round trip. Owned by Sessions (sessions.hh), which also decides
// which of several connections to a peer is the session. Lives in its loop's thread.
//
//   request -> reply | error     matched by id; each has its own time-out at the requester
//   push                         no answer; body JSON or bytes
//   ping -> pong                 every `keepalive`; silence for `dead_after` ends the session
//
// Bounds: a peer that does not read makes the session end when `max_outbound` bytes wait for it; a
// peer that asks too much at once is answered "busy"; a malformed or oversized message ends the
// session, and only it.
#include <array>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "base/units.hh"
#include "os/loop.hh"
#include "session/frame.hh"
#include "session/tls_stream.hh"

namespace godwit::session {

struct SessionLimits {
  Nanoseconds keepalive = seconds(5);
  Nanoseconds dead_after = seconds(15);
  std::size_t max_outbound = 8 * 1024 * 1024;  // bytes that wait for the peer to read
  std::size_t max_requests = 4096;             // of ours without an answer
  std::size_t max_inbound_requests = 1024;     // of the peer's without an answer
};

class Session;

// Answers one request, now or later, once. Outlives its session harmlessly; destroyed without an
// answer it sends an error, so that no requester waits for its time-out.
class Responder final {
 public:
  Responder(Responder&&) noexcept = default;
  Responder& operator=(Responder&&) = delete;
  ~Responder();
  void reply(const nlohmann::json& body);
  void fail(std::string_view error);

 private:
  friend class Session;
  Responder(std::weak_ptr<Session*> session, std::uint64_t id)
      : session_(std::move(session)), id_(id) {}
  std::weak_ptr<Session*> session_;
  std::uint64_t id_;
};

// What a session tells its owner, who must not destroy it in the call.
class SessionEvents {
 public:
  virtual ~SessionEvents() = default;
  virtual void on_request(Session& session, const std::string& method, const nlohmann::json& body,
                          Responder responder) = 0;
  // `body` is valid during the call.
  virtual void on_push(Session& session, const std::string& method, BytesView body) = 0;
  virtual void on_pong(Session& session) = 0;
  // Once, unless the session is destroyed first.
  virtual void on_closed(Session& session, const std::string& reason) = 0;
};

class Session final {
 public:
  using Reply = std::move_only_function<void(Result<nlohmann::json>)>;

  // `stream`: its handshake done. `via`: the relaying host, empty when direct.
  Session(os::Loop& loop, std::unique_ptr<TlsStream> stream, std::string via,
          const SessionLimits& limits, SessionEvents& events);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  const std::string& peer() const { return peer_; }
  const std::string& via() const { return via_; }
  std::string peer_address() const { return stream_->peer(); }
  bool is_initiator() const { return stream_->tls().is_client(); }
  Nanoseconds rtt() const { return rtt_; }  // 0 until measured; smoothed as in RFC 6298
  bool ended() const { return ended_; }
  // From the peer's hello; 1 and empty before it.
  unsigned protocol() const { return protocol_; }
  const std::string& peer_version() const { return peer_version_; }
  void agreed(unsigned protocol, std::string peer_version) {
    protocol_ = protocol;
    peer_version_ = std::move(peer_version);
  }
  // Secret and the same at both ends (TLS exporter); new with each connection.
  std::array<std::byte, 32> wire_secret() const;
  // Which session this is; the same at both ends, not secret.
  const crypto::Sha256& id() const { return id_; }

  // `reply` is called once: with the answer, with the peer's error, after `timeout`, when the
  // session ends, or at once (before this returns) when the request cannot be sent. Destroying the
  // session drops it uncalled.
  void request(const std::string& method, const nlohmann::json& body, Reply reply,
               Nanoseconds timeout);
  // Fails when the body is larger than kMaxBody or the session has ended.
  Result<> push(const std::string& method, const nlohmann::json& body);
  Result<> push_binary(const std::string& method, BytesView body);

  void ping();
  // Asks for a sign of life, and ends the session if none comes within `patience`.
  void doubt(Nanoseconds patience);
  // Ends it in order; on_closed(reason) is called before this returns.
  void end(const std::string& reason);

 private:
  friend class Responder;
  struct Pending {
    std::string method;
    Reply reply;
    os::Loop::Timer timeout;
  };

  void on_readable();
  void on_frame(const Frame& frame);
  void on_request(const Frame& frame);
  void on_answer(const Frame& frame);
  void on_pong(std::uint64_t id);
  void on_keepalive();
  void answer(std::uint64_t id, FrameKind kind, std::string_view body);
  void send(const Frame& frame);
  void flush();
  void settle(std::uint64_t id, Result<nlohmann::json> result);

  os::Loop& loop_;
  std::unique_ptr<TlsStream> stream_;
  const std::string peer_;
  const std::string via_;
  const SessionLimits limits_;
  SessionEvents& events_;
  crypto::Sha256 id_;
  unsigned protocol_ = 1;
  std::string peer_version_;
  std::shared_ptr<Session*> self_ = std::make_shared<Session*>(this);

  FrameReader reader_;
  Bytes outbound_;
  std::size_t outbound_taken_ = 0;
  std::map<std::uint64_t, Pending> pending_;
  std::uint64_t next_id_ = 1;
  std::size_t inbound_requests_ = 0;
  std::uint64_t ping_id_ = 0;
  bool ping_in_flight_ = false;
  Instant ping_sent_{};
  Instant last_heard_;
  Nanoseconds rtt_{0};
  bool ended_ = false;
  os::Loop::Timer keepalive_, doubt_;
  os::Loop::Timer turn_;      // goes on reading after letting others run
  os::Loop::Timer overflow_;  // ends a session whose peer does not read
};

}  // namespace godwit::session
