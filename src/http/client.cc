#include "http/client.hh"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <chrono>

#include "http/codec.hh"

namespace godwit::http {
namespace {

constexpr std::size_t kReadBytes = 16 * 1024;

using Deadline = std::chrono::steady_clock::time_point;
Deadline in(Nanoseconds time) { return std::chrono::steady_clock::now() + time; }

Result<os::Fd> connect_to(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return fail("the socket path {} is too long", path);
  path.copy(address.sun_path, path.size());
  os::Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return fail("{}", errno_text("make a socket"));
  if (::connect(fd.number(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    if (errno == ENOENT || errno == ECONNREFUSED) {
      return fail("no agent answers at {}: is godwitd running? (--socket names another one)", path);
    }
    if (errno == EACCES) {
      return fail("no permission for {}: run as root or join the socket's group", path);
    }
    return fail("{}", errno_text("connect to " + path));
  }
  return fd;
}

Result<> send_all(const os::Fd& fd, std::string_view text) {
  while (!text.empty()) {
    const auto sent = ::send(fd.number(), text.data(), text.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return fail("{}", errno_text("send the request to the agent"));
    text.remove_prefix(static_cast<std::size_t>(sent));
  }
  return {};
}

enum class Woken { readable, interrupted, late };

Woken wait_readable(const os::Fd& fd, Deadline deadline, const os::Fd* interrupt) {
  std::array<pollfd, 2> watched = {
      pollfd{.fd = fd.number(), .events = POLLIN, .revents = 0},
      pollfd{.fd = interrupt ? interrupt->number() : -1, .events = POLLIN, .revents = 0}};
  for (;;) {
    const auto left = duration_cast<milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() < 0) return Woken::late;
    const int count = ::poll(watched.data(), watched.size(), static_cast<int>(left.count()) + 1);
    if (count < 0) continue;  // EINTR
    if (watched[1].revents != 0) return Woken::interrupted;
    if (watched[0].revents != 0) return Woken::readable;
  }
}

// One exchange: sends a request and reads its answer step by step.
class Exchange final {
 public:
  Exchange(const Client& client, std::string_view text) : path_(client.socket_path()) {
    auto fd = connect_to(path_);
    if (!fd) {
      error_ = fd.error();
      return;
    }
    fd_ = std::move(*fd);
    if (const auto sent = send_all(fd_, text); !sent) error_ = sent.error();
  }

  // Reads some more; false at the end of the input, after an error or an interruption.
  bool read_some(Deadline deadline, const os::Fd* interrupt = nullptr) {
    switch (wait_readable(fd_, deadline, interrupt)) {
      case Woken::late:
        return give_up("the agent at {} does not answer");
      case Woken::interrupted:
        return interrupted_ = true, false;
      case Woken::readable:
        break;
    }
    std::array<std::byte, kReadBytes> buffer;
    const auto got = ::recv(fd_.number(), buffer.data(), buffer.size(), 0);
    if (got <= 0) return ended_ = true, false;
    append(input_, BytesView(buffer).first(static_cast<std::size_t>(got)));
    return true;
  }

  Result<> read_header(const os::Fd* interrupt) {
    const Deadline deadline = in(Client::kRequestTime);
    while (!error_ && !parser_.header_complete()) {
      if (!read_some(deadline, interrupt)) break;
      feed();
    }
    if (!error_ && ended_ && !parser_.header_complete()) {
      give_up("the agent at {} closed the connection without an answer");
    }
    return outcome();
  }

  Result<> read_body() {
    const Deadline deadline = in(Client::kRequestTime);
    parser_.read_body();
    feed();
    while (!error_ && !parser_.complete()) {
      const bool more = read_some(deadline);
      if (!more) parser_.end_of_input();
      feed();
      if (!more) break;
    }
    return outcome();
  }

  Reply reply() const {
    auto body = nlohmann::json::parse(parser_.body(), nullptr, false);
    if (body.is_discarded()) body = nullptr;
    return {.status = parser_.status(), .body = std::move(body)};
  }

  // For an exchange that should have become something else: the server's text as an Error.
  std::unexpected<Error> refusal() {
    if (const auto read = read_body(); !read) return std::unexpected(read.error());
    const Reply got = reply();
    return fail("{}", got.body.is_object() ? got.body.value("error", "refused") : "refused");
  }

  const ResponseParser& parser() const { return parser_; }
  bool interrupted() const { return interrupted_; }
  bool ended() const { return ended_; }
  Bytes take_input() { return std::exchange(input_, {}); }
  os::Fd take_fd() { return std::move(fd_); }
  Result<> outcome() const {
    if (error_) return std::unexpected(*error_);
    return {};
  }

 private:
  void feed() {
    const std::size_t used = parser_.feed(input_);
    input_.erase(input_.begin(), input_.begin() + static_cast<std::ptrdiff_t>(used));
    if (parser_.refusal()) {
      error_ = Error{fmt::format("the answer from {}: {}", path_, parser_.refusal()->text)};
    }
  }
  bool give_up(fmt::format_string<std::string&> format) {
    error_ = Error{fmt::format(format, path_)};
    return false;
  }

  std::string path_;
  os::Fd fd_;
  Bytes input_;
  ResponseParser parser_;
  std::optional<Error> error_;
  bool interrupted_ = false;
  bool ended_ = false;
};

}  // namespace

Result<Reply> Client::request(std::string_view method, std::string_view target,
                              const nlohmann::json& body) const {
  Exchange exchange(*this, write_request(method, target, body.is_null() ? "" : body.dump(), ""));
  if (const auto read = exchange.outcome(); !read) return std::unexpected(read.error());
  if (const auto read = exchange.read_header(nullptr); !read) return std::unexpected(read.error());
  if (const auto read = exchange.read_body(); !read) return std::unexpected(read.error());
  return exchange.reply();
}

Result<EventsEnd> Client::events(std::string_view target,
                                 const std::function<bool(const Event&)>& on_event,
                                 const os::Fd* interrupt) const {
  Exchange exchange(*this, write_request("GET", target, "", ""));
  if (const auto sent = exchange.outcome(); !sent) return std::unexpected(sent.error());
  if (const auto read = exchange.read_header(interrupt); !read) {
    return std::unexpected(read.error());
  }
  if (exchange.interrupted()) return EventsEnd::interrupted;
  if (exchange.parser().content_type() != "text/event-stream") return exchange.refusal();
  EventParser parser;
  for (;;) {
    parser.feed(exchange.take_input(), on_event);
    if (!parser.ok()) return fail("the agent sent an event that is too large");
    if (parser.stopped()) return EventsEnd::stopped;
    if (exchange.read_some(in(kSilence), interrupt)) continue;
    if (exchange.interrupted()) return EventsEnd::interrupted;
    return EventsEnd::closed;  // also after too long a silence: the caller asks again
  }
}

Result<Upgraded> Client::upgrade(std::string_view target, std::string_view protocol) const {
  Exchange exchange(*this, write_request("GET", target, "", protocol));
  if (const auto sent = exchange.outcome(); !sent) return std::unexpected(sent.error());
  if (const auto read = exchange.read_header(nullptr); !read) return std::unexpected(read.error());
  constexpr int kSwitchingProtocols = 101;
  if (exchange.parser().status() != kSwitchingProtocols) return exchange.refusal();
  return Upgraded{.fd = exchange.take_fd(), .early = exchange.take_input()};
}

}  // namespace godwit::http
