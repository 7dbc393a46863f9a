#include "http/server.hh"

#include <utility>
#include <vector>

namespace godwit::http {

Server::Server(os::Loop& loop) : loop_(loop) {
  owner_.dispatch = [this](Request request, Responder responder) {
    if (gate_ && !gate_(request, responder)) return;
    router_.dispatch(std::move(request), std::move(responder));
  };
  owner_.gone = [this](Connection& connection) { connections_.erase(&connection); };
}

Server::~Server() = default;

void Server::route(std::string method, std::string_view pattern, Router::Handler handler) {
  const Access access = method == "GET" ? Access::read : Access::change;
  router_.add(std::move(method), pattern, access, std::move(handler));
}

void Server::route(std::string method, std::string_view pattern, Access access,
                   Router::Handler handler) {
  router_.add(std::move(method), pattern, access, std::move(handler));
}

void Server::listen_unix(const std::string& path, unsigned mode) {
  listener_ = os::Listener::unix_(
      loop_, path, mode,
      [this](std::unique_ptr<os::ByteStream> stream, const os::Accepted& accepted) {
        Caller caller;
        if (accepted.credentials) {
          caller.name = fmt::format("uid {}", accepted.credentials->uid);
          caller.from = fmt::format("pid {}", accepted.credentials->pid);
        }
        serve(std::move(stream), std::move(caller));
      });
}

bool Server::has_room(const Caller& caller) const {
  std::size_t local = 0, remote = 0, same = 0;
  for (const auto& [raw, connection] : connections_) {
    const Caller& other = connection->caller();
    ++(other.remote() ? remote : local);
    if (other.remote() && other.name == caller.name) ++same;
  }
  if (!caller.remote()) return local < kMaxConnections;
  return remote < kMaxRemote && same < kMaxPerCaller;
}

void Server::serve(std::unique_ptr<os::ByteStream> stream, Caller caller) {
  if (!has_room(caller)) return;
  const auto connection = std::make_shared<Connection>(
      loop_, std::move(stream), std::make_shared<const Caller>(std::move(caller)), owner_);
  connections_[connection.get()] = connection;
  connection->start();
}

void Server::carry(Request request, Responder::Sink sink) {
  request.carried = true;
  const auto answered = std::make_shared<Responder::Sink>(std::move(sink));
  const auto answer = [answered](Response response) {
    if (auto once = std::exchange(*answered, nullptr)) once(std::move(response));
  };
  try {
    owner_.dispatch(std::move(request), Responder(answer));
  } catch (const std::exception& error) {
    answer(error_response(500, error.what()));
  }
}

void Server::cut(const std::function<bool(const Caller&)>& whose) {
  std::vector<std::shared_ptr<Connection>> cut;
  for (const auto& [raw, connection] : connections_) {
    if (whose(connection->caller())) cut.push_back(connection);
  }
  for (const auto& connection : cut) connection->leave();
}

}  // namespace godwit::http
