#pragma once
// Requests for other hosts of the fleet: "?at=HOST" on any route. The agent that is asked passes
// the request on over its session with that host, with who asks; the agent there handles it as if
// it had come to itself, and in its audit log it is.
//
//   client --HTTP--> e1 --api.call {method, path, query, body?, caller}--> w1: routes
//                    e1 <------- {status, text, left: 0} -----------------
//                    e1 --api.rest {id, offset}--> w1           while more is left: bodies may be
//                    e1 <--- {text, left} --------              larger than a message of a session
//
// A host speaks for its users, as it does for its ports: the others believe it. It does not make
// its root theirs: that one is an operator of every tenant to them. Control thread.
#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "agent/peers.hh"
#include "http/server.hh"
#include "os/loop.hh"

namespace godwit::agent {

inline constexpr unsigned kForwardProtocol = 12;  // of the session, docs/protocol/session.md

class ApiForward final {
 public:
  // `hosts_called`: the host of that name, or those of the site of that name.
  using HostsCalled = std::function<std::vector<std::string>(const std::string&)>;
  ApiForward(os::Loop& loop, http::Server& server, Peers& peers, HostsCalled hosts_called);

  bool is_elsewhere(const http::Request& request) const;
  // Answers with what the other host answers, or why it does not.
  void forward(const http::Request& request, http::Responder responder);
  // api.*
  void on_request(PeerRequest request, const nlohmann::json& body);

 private:
  struct Coming;  // an answer, piece by piece
  struct Left {   // of an answer that the peer has not fetched yet
    std::string peer, text;
    os::Loop::Timer limit;
  };

  Result<std::string> host_at(const std::string& name) const;
  void take_piece(std::shared_ptr<Coming> coming, const Result<nlohmann::json>& reply);
  nlohmann::json first_piece(const std::string& peer, const http::Response& response);
  Result<nlohmann::json> next_piece(const std::string& peer, const nlohmann::json& body);

  os::Loop& loop_;
  http::Server& server_;
  Peers& peers_;
  HostsCalled hosts_called_;
  std::map<std::uint64_t, Left> left_;
  std::uint64_t next_left_ = 1;
};

}  // namespace godwit::agent
