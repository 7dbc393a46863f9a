// In the order a message meets the functions: bytes -> lines -> message -> response or event.
#include "qemu/qmp.hh"

#include <algorithm>
#include <array>
#include <chrono>

#include "base/check.hh"
#include "os/socket.hh"
#include "qemu/json.hh"

namespace godwit::qemu {
namespace {

using nlohmann::json;

constexpr Nanoseconds kMostEventDelay = milliseconds(200);  // more is a clock that stepped
constexpr std::size_t kMostQuoted = 200;  // bytes of QEMU's words in an error of ours

std::string text_of(const json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

std::chrono::microseconds timestamp_of(const json& object) {
  const json& stamp = member(object, "timestamp");
  if (!stamp.is_object()) return {};
  // Bounded so that no sum overflows: 2^40 s is 34,000 years.
  const auto whole = static_cast<std::int64_t>(unsigned_at(stamp, "seconds") & ((1ULL << 40) - 1));
  const auto part = static_cast<std::int64_t>(unsigned_at(stamp, "microseconds") % 1'000'000);
  return seconds(whole) + std::chrono::microseconds(part);
}

Instant happened(const json& object, Instant now) {
  const auto wall = std::chrono::system_clock::now().time_since_epoch();
  const auto late = std::chrono::duration_cast<Nanoseconds>(wall) - timestamp_of(object);
  return now - std::clamp<Nanoseconds>(late, Nanoseconds(0), kMostEventDelay);
}

}  // namespace

// Replies to who had the connection before may still come: its ids are not used again.
Qmp::Qmp(os::Loop& loop, std::unique_ptr<os::ByteStream> stream, std::string vm, Events events,
         Mode mode)
    : loop_(loop),
      stream_(std::move(stream)),
      vm_(std::move(vm)),
      events_(std::move(events)),
      mode_(mode),
      state_(mode == Mode::kTakenOver ? State::ready : State::greeting),
      next_id_(mode == Mode::kTakenOver
                   ? static_cast<std::uint64_t>(loop.now().time_since_epoch().count())
                   : 1) {
  if (state_ == State::greeting)
    hello_timer_ = loop_.after(kQmpHelloTimeout, [this] {
      close(fmt::format("no QMP greeting within {}", to_text(kQmpHelloTimeout)));
    });
  stream_->start({.readable = [this] { readable(); },
                  .writable = [this] { flush(); },
                  .closed =
                      [this](std::string reason) {
                        const std::weak_ptr<bool> alive = alive_;
                        readable();
                        if (alive.expired()) return;
                        close(reason.empty() ? "QEMU closed the QMP connection" : reason);
                      }});
}

// Nobody waits for ever, and nobody is called by what is half gone: the loop tells them, in order.
Qmp::~Qmp() {
  if (pending_.empty()) return;
  for (auto& [id, pending] : pending_) pending.timer.reset();
  loop_.post([vm = vm_, pending = std::move(pending_)]() mutable {
    for (auto& [id, waiting] : pending) {
      const auto ended = fail("{} of vm {}: the QMP connection has ended", waiting.command, vm);
      if (waiting.reply) waiting.reply(ended);
    }
  });
}

std::unique_ptr<Qmp> Qmp::connect(os::Loop& loop, const std::string& path, std::string vm,
                                  Events events) {
  return std::make_unique<Qmp>(loop, os::unix_connect(loop, path), std::move(vm),
                               std::move(events));
}

void Qmp::execute(std::string_view command, json arguments, Reply reply, Nanoseconds timeout) {
  request(
      {.verb = "execute", .command = command, .arguments = std::move(arguments), .descriptor = {}},
      std::move(reply), timeout);
}

void Qmp::execute_out_of_band(std::string_view command, json arguments, Reply reply) {
  request(
      {.verb = "exec-oob", .command = command, .arguments = std::move(arguments), .descriptor = {}},
      std::move(reply), kQmpCommandTimeout);
}

void Qmp::pass_descriptor(std::string_view name, os::Fd descriptor, Reply reply) {
  request({.verb = "execute",
           .command = "getfd",
           .arguments = {{"fdname", name}},
           .descriptor = std::move(descriptor)},
          std::move(reply), kQmpCommandTimeout);
}

void Qmp::request(Request request, Reply reply, Nanoseconds timeout) {
  const std::uint64_t id = next_id_++;
  Pending& pending = pending_[id];
  pending.command = request.command;
  pending.reply = std::move(reply);
  const bool full = pending_.size() > kMaxQmpPending;
  if (state_ == State::closed || full) {
    // Through the loop, so that `reply` is never called from inside execute().
    pending.timer = loop_.after(Nanoseconds(0), [this, id, full] {
      finish(id, fail("{}", full ? "too many commands are waiting" : "QMP connection is closed"));
    });
    return;
  }
  pending.timer = loop_.after(
      timeout, [this, id, timeout] { finish(id, fail("no reply within {}", to_text(timeout))); });
  json message = {{request.verb, request.command}, {"id", id}};
  if (!request.arguments.empty()) message["arguments"] = std::move(request.arguments);
  Outgoing outgoing{.line = message.dump(-1, ' ', false, json::error_handler_t::replace) + "\n",
                    .descriptor = std::move(request.descriptor)};
  if (state_ == State::ready || request.command == "qmp_capabilities") {
    send(std::move(outgoing));
  } else {
    waiting_for_ready_.push_back(std::move(outgoing));
  }
}

void Qmp::readable() {
  if (state_ == State::closed) return;
  std::array<std::byte, 16384> chunk;
  while (const std::size_t count = stream_->read(chunk)) {
    input_ += as_text(BytesView(chunk).first(count));
    if (!take_lines()) return;
    if (input_.size() > kMaxQmpMessage) {
      return close(fmt::format("QMP message of more than {}", to_text(ByteCount{kMaxQmpMessage})));
    }
  }
}

bool Qmp::take_lines() {
  const std::weak_ptr<bool> alive = alive_;
  std::size_t end = 0;
  while ((end = input_.find('\n', searched_)) != std::string::npos) {
    const std::string line = input_.substr(0, end);
    input_.erase(0, end + 1);
    searched_ = 0;
    message(line);
    if (alive.expired() || state_ == State::closed) return false;
  }
  searched_ = input_.size();
  return true;
}

void Qmp::message(std::string_view line) {
  if (line.find_first_not_of(" \t\r") == std::string_view::npos) return;
  const json object = json::parse(line, nullptr, false);
  if (!object.is_object()) return close("QMP message is not a JSON object");
  if (object.contains("QMP")) return negotiate();
  if (object.contains("event")) return deliver_event(object);
  response(object);
}

void Qmp::negotiate() {
  if (state_ != State::greeting) return close("second QMP greeting");
  state_ = State::negotiating;
  json enabled;
  if (mode_ == Mode::kOutOfBand) enabled["enable"] = json::array({"oob"});
  execute("qmp_capabilities", std::move(enabled),
          [this, alive = std::weak_ptr(alive_)](Result<json> answer) {
            if (!alive.expired()) negotiated(std::move(answer));
          });
}

void Qmp::negotiated(Result<json> answer) {
  if (!answer) return close(answer.error().text);
  if (state_ != State::negotiating) return;
  state_ = State::ready;
  hello_timer_.reset();
  const std::weak_ptr<bool> alive = alive_;
  for (auto& waiting : std::exchange(waiting_for_ready_, {})) {
    send(std::move(waiting));
    if (alive.expired()) return;
  }
  if (!alive.expired() && state_ == State::ready && events_.ready) events_.ready();
}

void Qmp::deliver_event(const json& object) {
  const json& data = member(object, "data");
  const QmpEvent event{.name = text_of(member(object, "event")),
                       .data = data,
                       .happened = happened(object, loop_.now())};
  if (events_.event) events_.event(event);
}

void Qmp::response(const json& object) {
  const json& id = member(object, "id");
  // A reply without our id answers a line that QEMU could not parse: our bug or a broken QEMU.
  if (!id.is_number_unsigned()) {
    return close("QMP reply without id: " + text_of(object).substr(0, kMostQuoted));
  }
  const json& error = member(object, "error");
  if (error.is_object()) return finish(id, fail("{}", text_of(member(error, "desc"))));
  finish(id, member(object, "return"));
}

// Unknown ids are late replies of commands that timed out.
void Qmp::finish(std::uint64_t id, Result<json> result) {
  const auto found = pending_.find(id);
  if (found == pending_.end()) return;
  Pending pending = std::move(found->second);
  pending_.erase(found);
  if (!result) {
    result = fail("{} of vm {}: {}", pending.command, vm_, result.error().text);
  }
  if (pending.reply) pending.reply(std::move(result));
}

void Qmp::send(Outgoing outgoing) {
  output_.push_back(std::move(outgoing));
  flush();
}

void Qmp::flush() {
  while (state_ != State::closed && !output_.empty()) {
    auto& [line, descriptor] = output_.front();
    const std::size_t taken = descriptor ? stream_->write_with(as_bytes(line), descriptor.number())
                                         : stream_->write(as_bytes(line));
    if (taken == 0) return;
    descriptor = {};
    line.erase(0, taken);
    if (line.empty()) output_.pop_front();
  }
}

void Qmp::close(std::string reason) {
  if (state_ == State::closed) return;
  state_ = State::closed;
  hello_timer_.reset();
  stream_.reset();
  const std::weak_ptr<bool> alive = alive_;
  // Only those that wait now: a reply may well send the next command, which fails by itself.
  const std::uint64_t end = next_id_;
  while (!pending_.empty() && pending_.begin()->first < end) {
    finish(pending_.begin()->first, fail("{}", reason));
    if (alive.expired()) return;
  }
  if (events_.closed) events_.closed(fmt::format("QMP of vm {}: {}", vm_, reason));
}

}  // namespace godwit::qemu
