#pragma once
// The other agents of the fleet as moves and wires see them: someone to ask, and someone to open a
// lane to. Implemented by Fleet over sessions.
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/bytes.hh"
#include "base/result.hh"
#include "base/units.hh"
#include "os/byte_stream.hh"
#include "session/session.hh"

namespace godwit::agent {

class Peers {
 public:
  using Reply = std::move_only_function<void(Result<nlohmann::json>)>;
  using LaneReady = std::move_only_function<void(Result<std::unique_ptr<os::ByteStream>>)>;

  virtual ~Peers() = default;
  virtual const std::string& self() const = 0;
  virtual bool is_up(const std::string& peer) const = 0;
  virtual std::vector<std::string> up() const = 0;
  virtual Nanoseconds rtt(const std::string& peer) const = 0;
  // That the session with it speaks; 0: there is none.
  virtual unsigned protocol(const std::string& peer) const = 0;
  // `reply` gets the peer's answer, or why there is none; exactly once.
  virtual void request(const std::string& peer, const std::string& method,
                       const nlohmann::json& body, Reply reply, Nanoseconds timeout) = 0;
  // Without an answer; what is asked afterwards arrives after it, unless the session ends.
  virtual Result<> push(const std::string& peer, const std::string& method, BytesView body) = 0;
  virtual void open_lane(const std::string& peer, LaneReady ready) = 0;
};

// Answers one request of a peer, once, now or later; a reply after the session is gone is dropped.
struct PeerRequest {
  std::string peer;
  std::string method;
  std::function<void(Result<nlohmann::json>)> answer;
};
PeerRequest peer_request(const session::Session& session, const std::string& method,
                         session::Responder responder);

}  // namespace godwit::agent
