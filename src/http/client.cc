#include "http/client.hh"

#include <poll.h>

#include <array>
#include <cerrno>
#include <chrono>

#include "http/codec.hh"

namespace godwit::http {
namespace {

constexpr std::size_t kReadBytes = 16 * 1024;

using Deadline = std::chrono::steady_clock::time_point;
Deadline in(Nanoseconds time) { return std::chrono::steady_clock::now() + time; }

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
  Exchange(const Dialler& agent, std::string_view text) : where_(agent.where) {
    auto channel = agent.dial();
    if (!channel) {
      error_ = channel.error();
      return;
    }
    channel_ = *std::move(channel);
    if (const auto sent = channel_->send(as_bytes(text)); !sent) error_ = sent.error();
  }

  // Reads some more; false at the end of the input, after an error or an interruption.
  bool read_some(Deadline deadline, const os::Fd* interrupt = nullptr) {
    std::array<std::byte, kReadBytes> buffer;
    for (;;) {
      if (const std::size_t got = channel_->receive(buffer)) {
        append(input_, BytesView(buffer).first(got));
        return true;
      }
      if (channel_->ended()) return ended_ = true, false;
      switch (wait_readable(channel_->fd(), deadline, interrupt)) {
        case Woken::late:
          return give_up("the agent at {} does not answer");
        case Woken::interrupted:
          return interrupted_ = true, false;
        case Woken::readable:
          break;
      }
    }
  }

  Result<> read_header(const os::Fd* interrupt) {
    const Deadline deadline = in(Client::kRequestTime);
    while (!error_ && !parser_.header_complete()) {
      if (!read_some(deadline, interrupt)) break;
      feed();
    }
    if (!error_ && ended_ && !parser_.header_complete()) {
      const std::string why = channel_->why_ended();
      error_ = Error{fmt::format("the agent at {} closed the connection without an answer{}{}",
                                 where_, why.empty() ? "" : ": ", why)};
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
  std::unique_ptr<Channel> take_channel() { return std::move(channel_); }
  Result<> outcome() const {
    if (error_) return std::unexpected(*error_);
    return {};
  }

 private:
  void feed() {
    const std::size_t used = parser_.feed(input_);
    input_.erase(input_.begin(), input_.begin() + static_cast<std::ptrdiff_t>(used));
    if (parser_.refusal()) {
      error_ = Error{fmt::format("the answer from {}: {}", where_, parser_.refusal()->text)};
    }
  }
  bool give_up(fmt::format_string<std::string&> format) {
    error_ = Error{fmt::format(format, where_)};
    return false;
  }

  std::string where_;
  std::unique_ptr<Channel> channel_;
  Bytes input_;
  ResponseParser parser_;
  std::optional<Error> error_;
  bool interrupted_ = false;
  bool ended_ = false;
};

}  // namespace

std::string Client::target_at(std::string_view target) const {
  std::string text(target);
  if (!at_.empty()) text += (text.contains('?') ? "&at=" : "?at=") + percent_encode(at_);
  return text;
}

Result<Reply> Client::request(std::string_view method, std::string_view target,
                              const nlohmann::json& body) const {
  Exchange exchange(
      agent_, write_request(method, target_at(target), body.is_null() ? "" : body.dump(), ""));
  if (const auto read = exchange.outcome(); !read) return std::unexpected(read.error());
  if (const auto read = exchange.read_header(nullptr); !read) return std::unexpected(read.error());
  if (const auto read = exchange.read_body(); !read) return std::unexpected(read.error());
  return exchange.reply();
}

Result<EventsEnd> Client::events(std::string_view target,
                                 const std::function<bool(const Event&)>& on_event,
                                 const os::Fd* interrupt) const {
  Exchange exchange(agent_, write_request("GET", target_at(target), "", ""));
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
  Exchange exchange(agent_, write_request("GET", target_at(target), "", protocol));
  if (const auto sent = exchange.outcome(); !sent) return std::unexpected(sent.error());
  if (const auto read = exchange.read_header(nullptr); !read) return std::unexpected(read.error());
  constexpr int kSwitchingProtocols = 101;
  if (exchange.parser().status() != kSwitchingProtocols) return exchange.refusal();
  return Upgraded{.channel = exchange.take_channel(), .early = exchange.take_input()};
}

}  // namespace godwit::http
