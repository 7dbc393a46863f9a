#pragma once
// HTTP/1.1 server for the local API, in one loop thread. Owns its listener and its connections;
// destroying it cuts them all. At most kMaxConnections at a time: one more is closed unread.
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
  static constexpr std::size_t kMaxConnections = 128;

  explicit Server(os::Loop& loop);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // server.route("GET", "/v1/vms/{name}", [](const Request& request, Responder responder) {...});
  void route(std::string method, std::string_view pattern, Router::Handler handler);
  // Listens on a unix socket with these mode bits; the socket of a dead process is
  // replaced. Throws SetupError.
  void listen_unix(const std::string& path, unsigned mode);
  // Serves one connection that came some other way.
  void serve(std::unique_ptr<os::ByteStream> stream);
  std::size_t connections() const { return connections_.size(); }

 private:
  os::Loop& loop_;
  Router router_;
  Connection::Owner owner_;
  std::map<Connection*, std::shared_ptr<Connection>> connections_;
  std::unique_ptr<os::Listener> listener_;
};

}  // namespace godwit::http
