#pragma once
// HTTP/1.1 server of the API, in one loop thread. Owns its listener and its connections; destroying
// it cuts them all. Connections are bounded, those from afar apart from the local ones and by
// caller: one more is closed unread.
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "http/connection.hh"
#include "http/router.hh"
#include "os/byte_stream.hh"
#include "os/loop.hh"
#include "os/socket.hh"

namespace godwit::http {

class Server final {
 public:
  static constexpr std::size_t kMaxConnections = 128;  // through the unix socket
  static constexpr std::size_t kMaxRemote = 64;        // by certified callers, about 1 MiB each
  static constexpr std::size_t kMaxPerCaller = 16;     // of those; a dashboard takes a few

  explicit Server(os::Loop& loop);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // server.route("GET", "/v1/vms/{name}", [](const Request& request, Responder responder) {...});
  // Without `access`: GET reads, everything else changes.
  void route(std::string method, std::string_view pattern, Router::Handler handler);
  void route(std::string method, std::string_view pattern, Access access, Router::Handler handler);
  // Called before each request is routed; false: it has answered. May set on_answer().
  using Gate = std::function<bool(const Request&, Responder&)>;
  void use_gate(Gate gate) { gate_ = std::move(gate); }
  // Listens on a unix socket with these mode bits; the socket of a dead process is
  // replaced. Throws SetupError.
  void listen_unix(const std::string& path, unsigned mode);
  // Serves one connection that came some other way.
  void serve(std::unique_ptr<os::ByteStream> stream, Caller caller = {});
  // Handles a request that no connection brought; its caller is known. `sink` is called once.
  void carry(Request request, Responder::Sink sink);
  // Cuts the connections of these callers, event streams too.
  void cut(const std::function<bool(const Caller&)>& whose);

  std::size_t connections() const { return connections_.size(); }
  const Router& router() const { return router_; }

 private:
  bool has_room(const Caller& caller) const;

  os::Loop& loop_;
  Router router_;
  Gate gate_;
  Connection::Owner owner_;
  std::map<Connection*, std::shared_ptr<Connection>> connections_;
  std::unique_ptr<os::Listener> listener_;
};

}  // namespace godwit::http
