#include "lab/guest/tcp_service.hh"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "lab/guest/sockets.hh"

namespace godwit::lab {

TcpService::TcpService(std::uint16_t port, Handler handler, int protocol)
    : listener_(bind_or_exit(SOCK_STREAM, port, protocol)), handler_(std::move(handler)) {}

void TcpService::add_to(std::vector<pollfd>& polls) const {
  polls.push_back({listener_, POLLIN, 0});
  for (const Connection& connection : connections_) {
    int events = connection.output.empty() ? 0 : POLLOUT;
    if (!connection.ended && connection.output.size() < kEchoBuffer) events |= POLLIN;
    polls.push_back({connection.fd, static_cast<short>(events), 0});
  }
}

void TcpService::handle(const pollfd* polls) {
  std::vector<Connection> kept;
  for (std::size_t i = 0; i < connections_.size(); ++i) {
    const short events = polls[i + 1].revents;
    if (events == 0 || serve(connections_[i], events)) {
      kept.push_back(std::move(connections_[i]));
    } else {
      ::close(connections_[i].fd);
    }
  }
  connections_ = std::move(kept);
  if ((polls[0].revents & POLLIN) != 0) accept();
}

void TcpService::accept() {
  const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return;
  if (connections_.size() >= kMaxConnections) {
    ::close(fd);
    return;
  }
  const int one = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  ++accepted_;
  connections_.push_back({.fd = fd, .input = {}, .output = {}});
}

bool TcpService::serve(Connection& connection, short events) {
  if ((events & (POLLERR | POLLNVAL)) != 0) return false;
  std::array<char, 65536> buffer;
  if ((events & (POLLIN | POLLHUP)) != 0 && !connection.ended) {
    const ssize_t count = ::read(connection.fd, buffer.data(), buffer.size());
    if (count < 0 && errno != EAGAIN) return false;
    if (count == 0) connection.ended = true;
    if (count > 0) {
      bytes_ += static_cast<std::uint64_t>(count);
      connection.input.append(buffer.data(), static_cast<std::size_t>(count));
      if (!handler_(connection.input, connection.output)) return false;
    }
  }
  if (!connection.output.empty()) {
    const ssize_t sent =
        ::send(connection.fd, connection.output.data(), connection.output.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) return false;
    if (sent > 0) connection.output.erase(0, static_cast<std::size_t>(sent));
  }
  return !connection.ended || !connection.output.empty();
}

bool echo_handler(std::string& input, std::string& output) {
  output += input;
  input.clear();
  return true;
}

TcpService::Handler line_handler(std::function<std::string(const std::string&)> answer) {
  return [answer = std::move(answer)](std::string& input, std::string& output) {
    for (std::size_t end = 0; (end = input.find('\n')) != std::string::npos;) {
      output += answer(input.substr(0, end)) + "\n";
      input.erase(0, end + 1);
    }
    return input.size() <= kMaxLine;
  };
}

}  // namespace godwit::lab
