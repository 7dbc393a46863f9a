#include "lab/control.hh"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>

namespace godwit::lab {

ControlServer::ControlServer(os::Loop& loop, const std::string& path, Handler handler)
    : handler_(std::move(handler)) {
  listener_ = os::Listener::unix_(
      loop, path, 0600, [this](auto stream, const os::Accepted&) { accepted(std::move(stream)); });
}

ControlServer::~ControlServer() = default;

void ControlServer::accepted(std::unique_ptr<os::SocketStream> stream) {
  if (connections_.size() >= kControlConnections) return;  // dropped with its stream
  const Place connection = connections_.emplace(connections_.end());
  connection->stream = std::move(stream);
  connection->stream->start({.readable = [this, connection] { readable(connection); },
                             .writable = [this, connection] { flush(connection); },
                             .closed =
                                 [this, connection](const std::string&) {
                                   // What was asked is answered already; a one-line client has read
                                   // it.
                                   connections_.erase(connection);
                                 }});
}

void ControlServer::readable(Place connection) {
  std::array<std::byte, 16384> buffer;
  for (;;) {
    const std::size_t got = connection->stream->read(buffer);
    if (got == 0) break;
    if (connection->input.size() + got > kControlRequestLimit) {
      connections_.erase(connection);
      return;
    }
    connection->input += as_text(BytesView(buffer).first(got));
  }
  for (std::size_t end = 0; (end = connection->input.find('\n')) != std::string::npos;) {
    const std::string line = connection->input.substr(0, end);
    connection->input.erase(0, end + 1);
    connection->output += answer(line);
  }
  flush(connection);
}

void ControlServer::flush(Place connection) {
  std::string& output = connection->output;
  while (!output.empty()) {
    const std::size_t taken = connection->stream->write(as_bytes(output));
    if (taken == 0) return;  // `writable` follows
    output.erase(0, taken);
  }
}

std::string ControlServer::answer(const std::string& line) {
  nlohmann::json reply;
  try {
    Result<nlohmann::json> result = handler_(nlohmann::json::parse(line));
    reply = result ? std::move(*result) : nlohmann::json{{"error", result.error().text}};
  } catch (const std::exception& error) {
    reply = {{"error", error.what()}};
  }
  return reply.dump() + "\n";
}

namespace {

Result<> send_line(const os::Fd& socket, const std::string& line) {
  for (std::size_t sent = 0; sent < line.size();) {
    const ssize_t count =
        ::send(socket.number(), line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
    if (count <= 0) return fail("{}", errno_text("send"));
    sent += static_cast<std::size_t>(count);
  }
  return {};
}

}  // namespace

Result<nlohmann::json> ask(const std::string& path, const nlohmann::json& request,
                           Nanoseconds limit) {
  const os::Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (!socket || path.size() >= sizeof address.sun_path)
    return fail("cannot use the socket {}", path);
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  const auto whole = duration_cast<seconds>(limit);
  const timeval timeout{.tv_sec = whole.count(),
                        .tv_usec = duration_cast<std::chrono::microseconds>(limit - whole).count()};
  ::setsockopt(socket.number(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  if (::connect(socket.number(), reinterpret_cast<const sockaddr*>(&address), sizeof address) !=
      0) {
    return fail("{}", errno_text(fmt::format("connect to {}", path)));
  }
  if (auto sent = send_line(socket, request.dump() + "\n"); !sent)
    return std::unexpected(sent.error());
  std::string line;
  std::array<char, 65536> buffer;
  while (!line.ends_with('\n')) {
    const ssize_t got = ::recv(socket.number(), buffer.data(), buffer.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0)
      return fail("{}",
                  got == 0 ? path + " closed without an answer" : errno_text("wait for " + path));
    line.append(buffer.data(), static_cast<std::size_t>(got));
    if (line.size() > kControlReplyLimit) return fail("the answer of {} is too long", path);
  }
  auto reply = nlohmann::json::parse(line, nullptr, false);
  if (!reply.is_object()) return fail("{} answered what is not JSON", path);
  if (reply.contains("error")) return fail("{}", reply["error"].get<std::string>());
  return reply;
}

}  // namespace godwit::lab
