#include "session/session.hh"

#include <nlohmann/json.hpp>

#include "base/check.hh"
#include "session/json_body.hh"

namespace godwit::session {
namespace {

constexpr std::string_view kWireLabel = "EXPORTER-godwit-wire";
constexpr std::string_view kIdLabel = "EXPORTER-godwit-session-id";
constexpr int kFramesPerTurn = 64;  // then the loop's other work has its turn
constexpr int kRttWeight = 8;       // RFC 6298: alpha = 1/8

}  // namespace

Responder::~Responder() { fail("the request was dropped"); }

void Responder::reply(const nlohmann::json& body) {
  const auto session = std::exchange(session_, {}).lock();
  if (session == nullptr) return;
  const std::string text = json_text(body);
  if (text.size() <= kMaxBody) return (*session)->answer(id_, FrameKind::reply, text);
  (*session)->answer(id_, FrameKind::error,
                     fmt::format("the answer has {} bytes; {} is the most", text.size(), kMaxBody));
}

void Responder::fail(std::string_view error) {
  const auto session = std::exchange(session_, {}).lock();
  if (session != nullptr) (*session)->answer(id_, FrameKind::error, printable(error));
}

Session::Session(os::Loop& loop, std::unique_ptr<TlsStream> stream, std::string via,
                 const SessionLimits& limits, SessionEvents& events)
    : loop_(loop),
      stream_(std::move(stream)),
      peer_(stream_->tls().peer_name()),
      via_(std::move(via)),
      limits_(limits),
      events_(events),
      id_(crypto::sha256(stream_->tls().export_secret(kIdLabel, {}))),
      last_heard_(loop.now()) {
  CHECK(!peer_.empty(), "a session needs a certified peer");
  stream_->start({.readable = [this] { on_readable(); },
                  .writable = [this] { flush(); },
                  .closed =
                      [this](std::string reason) {
                        end(reason.empty() ? "the peer ended the session" : reason);
                      }});
  on_keepalive();
}

Session::~Session() = default;

std::array<std::byte, 32> Session::wire_secret() const {
  return stream_->tls().export_secret(kWireLabel, {});
}

void Session::request(const std::string& method, const nlohmann::json& body, Reply reply,
                      Nanoseconds timeout) {
  const std::string text = json_text(body);
  if (ended_) return reply(fail("{}: the session with {} has ended", method, peer_));
  if (text.size() > kMaxBody) {
    return reply(fail("{}: the request to {} has {} bytes; {} is the most", method, peer_,
                      text.size(), kMaxBody));
  }
  if (pending_.size() >= limits_.max_requests) {
    return reply(fail("{}: {} requests to {} are unanswered", method, pending_.size(), peer_));
  }
  const std::uint64_t id = next_id_++;
  Pending& pending = pending_[id];
  pending.method = method;
  pending.reply = std::move(reply);
  pending.timeout = loop_.after(timeout, [this, id, timeout] {
    settle(id, fail("no answer from {} within {}", peer_, to_text(timeout)));
  });
  send({.kind = FrameKind::request, .id = id, .method = method, .body = as_bytes(text)});
}

Result<> Session::push(const std::string& method, const nlohmann::json& body) {
  return push_binary(method, as_bytes(json_text(body)));
}

Result<> Session::push_binary(const std::string& method, BytesView body) {
  if (ended_) return fail("{}: the session with {} has ended", method, peer_);
  if (body.size() > kMaxBody) {
    return fail("{}: the message to {} has {} bytes; {} is the most", method, peer_, body.size(),
                kMaxBody);
  }
  send({.kind = FrameKind::push, .id = 0, .method = method, .body = body});
  return {};
}

void Session::send(const Frame& frame) {
  if (ended_) return;
  encode(frame, outbound_);
  flush();
  if (outbound_.size() - outbound_taken_ <= limits_.max_outbound || overflow_) return;
  overflow_ = loop_.after(Nanoseconds(0), [this] {
    end(fmt::format("{} takes no data: {} bytes are waiting", peer_,
                    outbound_.size() - outbound_taken_));
  });
}

void Session::flush() {
  if (ended_) return;
  while (outbound_taken_ < outbound_.size()) {
    const std::size_t took = stream_->write(BytesView(outbound_).subspan(outbound_taken_));
    outbound_taken_ += took;
    if (took == 0) break;
  }
  if (outbound_taken_ == outbound_.size()) {
    outbound_.clear();
    outbound_taken_ = 0;
  } else if (outbound_taken_ > outbound_.size() / 2) {
    outbound_.erase(outbound_.begin(),
                    outbound_.begin() + static_cast<std::ptrdiff_t>(outbound_taken_));
    outbound_taken_ = 0;
  }
}

void Session::on_readable() {
  for (int i = 0; i < kFramesPerTurn; ++i) {
    if (ended_) return;
    const auto frame = reader_.next(*stream_);
    if (!frame) return end(frame.error().text);
    if (!*frame) return;
    last_heard_ = loop_.now();
    on_frame(**frame);
  }
  turn_ = loop_.after(Nanoseconds(0), [this] { on_readable(); });
}

void Session::on_frame(const Frame& frame) {
  switch (frame.kind) {
    case FrameKind::request:
      return on_request(frame);
    case FrameKind::reply:
    case FrameKind::error:
      return on_answer(frame);
    case FrameKind::push:
      return events_.on_push(*this, std::string(frame.method), frame.body);
    case FrameKind::ping:
      return send({.kind = FrameKind::pong, .id = frame.id, .method = {}, .body = {}});
    case FrameKind::pong:
      return on_pong(frame.id);
  }
}

void Session::on_request(const Frame& frame) {
  ++inbound_requests_;
  Responder responder(self_, frame.id);
  if (inbound_requests_ > limits_.max_inbound_requests) return responder.fail("busy; try again");
  const auto body = parse_json_body(frame.body);
  if (!body) return responder.fail(body.error().text);
  events_.on_request(*this, std::string(frame.method), *body, std::move(responder));
}

void Session::answer(std::uint64_t id, FrameKind kind, std::string_view body) {
  CHECK(inbound_requests_ > 0);
  --inbound_requests_;
  send({.kind = kind, .id = id, .method = {}, .body = as_bytes(body)});
}

void Session::on_answer(const Frame& frame) {
  if (frame.kind == FrameKind::reply) return settle(frame.id, parse_json_body(frame.body));
  settle(frame.id, std::unexpected(Error{printable(as_text(frame.body))}));
}

// An answer that comes after its time-out finds nothing: it is dropped.
void Session::settle(std::uint64_t id, Result<nlohmann::json> result) {
  auto node = pending_.extract(id);
  if (node.empty()) return;
  Pending& pending = node.mapped();
  if (!result) result = fail("{}: {}", pending.method, result.error().text);
  pending.reply(std::move(result));
}

void Session::ping() {
  ping_sent_ = loop_.now();
  ping_in_flight_ = true;
  send({.kind = FrameKind::ping, .id = ++ping_id_, .method = {}, .body = {}});
}

void Session::doubt(Nanoseconds patience) {
  if (ended_ || doubt_) return;
  const Instant since = loop_.now();
  doubt_ = loop_.after(patience, [this, since, patience] {
    doubt_.reset();
    if (last_heard_ < since)
      end(fmt::format("no answer from {} within {}", peer_, to_text(patience)));
  });
  ping();
}

void Session::on_pong(std::uint64_t id) {
  if (id != ping_id_ || !std::exchange(ping_in_flight_, false)) return;
  const Nanoseconds sample = loop_.now() - ping_sent_;
  rtt_ = rtt_ == Nanoseconds(0) ? sample : rtt_ + (sample - rtt_) / kRttWeight;
  events_.on_pong(*this);
}

void Session::on_keepalive() {
  const Nanoseconds silence = loop_.now() - last_heard_;
  if (silence >= limits_.dead_after) {
    return end(fmt::format("nothing heard from {} for {}", peer_, to_text(silence)));
  }
  keepalive_ = loop_.after(limits_.keepalive, [this] { on_keepalive(); });
  ping();
}

void Session::end(const std::string& reason) {
  if (std::exchange(ended_, true)) return;
  keepalive_.reset();
  doubt_.reset();
  turn_.reset();
  overflow_.reset();
  stream_->finish();
  const std::weak_ptr<Session*> alive = self_;
  auto pending = std::exchange(pending_, {});
  for (auto& [id, request] : pending) {
    request.reply(fail("{}: the session with {} ended: {}", request.method, peer_, reason));
  }
  CHECK(!alive.expired(), "a session was destroyed by a reply's callback");
  events_.on_closed(*this, reason);
}

}  // namespace godwit::session
