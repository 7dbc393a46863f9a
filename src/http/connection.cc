#include "http/connection.hh"

#include <array>
#include <exception>
#include <utility>

#include "base/check.hh"
#include "http/sse.hh"

namespace godwit::http {
namespace {

constexpr std::size_t kReadBytes = 16 * 1024;
// What a client may send ahead: one request at its limits, and the read that found its end.
constexpr std::size_t kMaxInput = kMaxHeaderBytes + kMaxRequestBody + kReadBytes;
constexpr Nanoseconds kIdleTime = seconds(60);     // between two requests
constexpr Nanoseconds kRequestTime = seconds(10);  // from the first byte of a request to its last
constexpr Nanoseconds kStallTime = seconds(30);    // unsent output without progress
constexpr Nanoseconds kQuietTime = seconds(15);    // before a heartbeat; clients wait for three

}  // namespace

Connection::Connection(os::Loop& loop, std::unique_ptr<os::ByteStream> stream,
                       std::shared_ptr<const Caller> caller, const Owner& owner)
    : loop_(loop),
      owner_(owner),
      stream_(std::make_unique<HandedStream>(loop, std::move(stream))),
      caller_(std::move(caller)) {}

Connection::~Connection() = default;

void Connection::start() {
  const auto self = shared_from_this();
  // The stream is owned by this connection: its callbacks cannot outlive it.
  stream_->start({
      .readable = [this] { read_input(); },
      .writable = [this] { write_output(); },
      .closed = [this](const std::string&) { leave(); },
  });
  if (state_ != State::gone) arm_timer();
}

void Connection::read_input() {
  const auto self = shared_from_this();
  std::array<std::byte, kReadBytes> buffer;
  while (stream_ != nullptr && state_ != State::handing_over) {
    const std::size_t got = stream_->read(buffer);
    if (got == 0) return;
    if (state_ == State::streaming || state_ == State::closing) continue;  // nothing to say to that
    if (input_.size() + got > kMaxInput) return leave();
    append(input_, BytesView(buffer).first(got));
    if (state_ == State::reading) begin_request();
    parse_input();
  }
}

// The time for a request runs from its first byte, however slowly the others come.
void Connection::begin_request() {
  if (std::exchange(begun_, true)) return;
  arm_timer();
}

void Connection::parse_input() {
  if (parsing_) return;  // an answer given inside the handler: the loop below goes on
  parsing_ = true;
  while (state_ == State::reading && !input_.empty()) {
    const std::size_t used = parser_.feed(input_);
    input_.erase(input_.begin(), input_.begin() + static_cast<std::ptrdiff_t>(used));
    if (parser_.refusal()) {
      refuse(*parser_.refusal());
    } else if (parser_.complete()) {
      dispatch(parser_.take());
    } else {
      break;
    }
  }
  parsing_ = false;
}

void Connection::dispatch(Request request) {
  state_ = State::answering;
  timer_ = {};
  begun_ = false;
  keep_alive_ = request.keep_alive;
  request.caller = caller_;
  const std::uint64_t number = ++request_;
  try {
    owner_.dispatch(std::move(request), Responder(weak_from_this(), number));
  } catch (const std::exception& error) {
    if (awaits(number)) answer(error_response(500, error.what()));
  }
}

void Connection::refuse(const Refusal& refusal) {
  keep_alive_ = false;
  state_ = State::answering;
  answer(error_response(refusal.status, refusal.text));
}

bool Connection::awaits(std::uint64_t request) const {
  return state_ == State::answering && request == request_;
}

void Connection::answer(const Response& response) {
  CHECK(state_ == State::answering);
  state_ = keep_alive_ ? State::reading : State::closing;
  begun_ = !input_.empty();
  send(write_response(response, keep_alive_));
  parse_input();
}

void Connection::start_events(const std::shared_ptr<EventStream>& events) {
  CHECK(state_ == State::answering);
  state_ = State::streaming;
  events_ = events;
  input_.clear();
  send(write_event_stream_header());
}

bool Connection::push_event(std::string_view name, std::string_view data, std::string_view id) {
  if (state_ != State::streaming) return false;
  if (output_.size() - output_sent_ + data.size() > EventStream::kMaxEventBacklog) {
    // Not here: the owner of the event stream must not be called back from inside its own push.
    soon_ = loop_.after(Nanoseconds(0), [this] { leave(); });
    state_ = State::closing;
    return false;
  }
  send(write_event(name, data, id));
  return true;
}

void Connection::end_events() {
  if (state_ != State::streaming) return;
  state_ = State::closing;
  send({});
}

void Connection::upgrade(std::string_view protocol, Responder::OnUpgraded on_upgraded) {
  CHECK(state_ == State::answering);
  state_ = State::handing_over;
  on_upgraded_ = std::move(on_upgraded);
  send(write_upgrade_header(protocol));
}

void Connection::send(std::string_view text) {
  output_ += text;
  write_output();
}

void Connection::write_output() {
  if (stream_ == nullptr) return;
  const auto self = shared_from_this();
  bool progress = false;
  while (output_sent_ < output_.size()) {
    const std::size_t taken = stream_->write(as_bytes(output_).subspan(output_sent_));
    if (taken == 0) break;
    output_sent_ += taken;
    progress = true;
  }
  if (output_sent_ == output_.size()) {
    output_.clear();
    output_sent_ = 0;
    all_sent();
  } else if (progress) {
    output_.erase(0, std::exchange(output_sent_, 0));
  }
  if (state_ != State::gone && (progress || !timer_)) arm_timer();
}

void Connection::all_sent() {
  if (state_ == State::closing && !std::exchange(finished_, true)) {
    stream_->finish();  // the client's own end follows, or the stall timer cuts it
  }
  if (state_ == State::handing_over) soon_ = loop_.after(Nanoseconds(0), [this] { hand_over(); });
}

void Connection::hand_over() {
  const auto self = shared_from_this();
  auto on_upgraded = std::exchange(on_upgraded_, nullptr);
  stream_->start({});  // this connection's callbacks end here
  stream_->unread(std::exchange(input_, {}));
  std::unique_ptr<os::ByteStream> stream = std::move(stream_);
  leave();
  on_upgraded(std::move(stream));
}

void Connection::arm_timer() {
  const bool unsent = output_sent_ < output_.size();
  Nanoseconds time = kStallTime;
  if (!unsent) {
    switch (state_) {
      case State::reading:
        time = begun_ ? kRequestTime : kIdleTime;
        break;
      case State::streaming:
        time = kQuietTime;
        break;
      case State::closing:
        break;
      case State::answering:     // the handler has its own time-outs
      case State::handing_over:  // its timer is the hand-over itself
      case State::gone:
        return;
    }
  }
  timer_ = loop_.after(time, [this] { timer_fired(); });
}

void Connection::timer_fired() {
  timer_ = {};
  if (state_ == State::streaming && output_.empty()) return send(kHeartbeat);
  leave();
}

void Connection::leave() {
  if (state_ == State::gone) return;
  const auto self = shared_from_this();
  state_ = State::gone;
  timer_ = {};
  soon_ = {};
  stream_.reset();
  owner_.gone(*this);
  if (const auto events = events_.lock()) events->peer_gone();
}

}  // namespace godwit::http
