#include "http/server.hh"

#include <utility>

namespace godwit::http {

Server::Server(os::Loop& loop) : loop_(loop) {
  owner_.dispatch = [this](Request request, Responder responder) {
    router_.dispatch(std::move(request), std::move(responder));
  };
  owner_.gone = [this](Connection& connection) { connections_.erase(&connection); };
}

Server::~Server() = default;

void Server::route(std::string method, std::string_view pattern, Router::Handler handler) {
  router_.add(std::move(method), pattern, std::move(handler));
}

void Server::listen_unix(const std::string& path, unsigned mode) {
  listener_ = os::Listener::unix_(
      loop_, path, mode, [this](std::unique_ptr<os::ByteStream> stream, const os::Accepted&) {
        serve(std::move(stream));
      });
}

void Server::serve(std::unique_ptr<os::ByteStream> stream) {
  if (connections_.size() >= kMaxConnections) return;
  const auto connection = std::make_shared<Connection>(loop_, std::move(stream), owner_);
  connections_[connection.get()] = connection;
  connection->start();
}

}  // namespace godwit::http
