#include "session/peer_link.hh"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/check.hh"
#include "os/random.hh"
#include "session/json_body.hh"

namespace godwit::session {
namespace {

constexpr const char* kHello = "session.hello";
constexpr const char* kSelect = "session.select";

// Between half of `most` and all of it, so that two hosts that failed together do not meet again.
Nanoseconds jitter(Nanoseconds most) {
  std::array<std::byte, 4> raw;
  os::fill_random(raw);
  const auto share = from_big_endian<std::uint32_t>(raw.data()) % 512;
  return most / 2 + most / 1024 * share;
}

}  // namespace

PeerLink::PeerLink(os::Loop& loop, bool is_chooser, std::string peer, std::string instance,
                   const LinkLimits& limits, PeerLinkOwner& owner)
    : loop_(loop),
      is_chooser_(is_chooser),
      peer_(std::move(peer)),
      instance_(std::move(instance)),
      limits_(limits),
      owner_(owner) {}

void PeerLink::want(std::vector<os::Endpoint> addresses) {
  const bool news = !wanted_ || addresses != addresses_;
  wanted_ = true;
  addresses_ = std::move(addresses);
  if (!news) return;
  backoff_ = kFirstBackoff;
  redial_.reset();
  consider_dialing();
}

void PeerLink::forget() {
  wanted_ = false;
  dial_.reset();
  redial_.reset();
  renewal_.reset();
  drop_candidates("the peer was forgotten");
  if (active_) active_->session->end("the peer was forgotten");
}

// --- dialling

void PeerLink::consider_dialing() {
  if (!wanted_ || active_ || dial_ || redial_ || !candidates_.empty()) return;
  start_dial(true);
}

void PeerLink::start_dial(bool relays) {
  const bool replaces = active_ != nullptr;
  dial_ = owner_.dial_link(peer_, addresses_, relays, [this, replaces](auto reached) {
    on_dialed(std::move(reached), replaces);
  });
}

void PeerLink::schedule_dial() {
  if (!wanted_ || active_ || redial_) return;
  redial_ = loop_.after(jitter(backoff_), [this] {
    redial_.reset();
    consider_dialing();
  });
  backoff_ = std::min(backoff_ * 2, limits_.max_backoff);
}

void PeerLink::on_dialed(Result<Dial::Reached> reached, bool replaces) {
  const auto over = std::move(dial_);  // we are in its callback: it goes when we return
  if (reached) return add_candidate(std::move(reached->stream), std::move(reached->via), replaces);
  if (active_) return schedule_renewal();
  last_error_ = reached.error().text;
  schedule_dial();
}

void PeerLink::add(std::unique_ptr<TlsStream> stream, std::string via) {
  add_candidate(std::move(stream), std::move(via), false);
}

// --- choosing

void PeerLink::add_candidate(std::unique_ptr<TlsStream> stream, std::string via, bool replaces) {
  if (candidates_.size() >= kMaxCandidates) {
    candidates_.front()->session->end("too many connections from one host");
  }
  auto& connection = *candidates_.emplace_back(std::make_unique<Connection>());
  connection.replaces = replaces;
  SessionEvents& events = *this;
  connection.session =
      std::make_unique<Session>(loop_, std::move(stream), std::move(via), limits_.session, events);
  connection.deadline = loop_.after(kSelectTimeout, [&session = *connection.session] {
    session.end("the connection was not taken up in time");
  });
  nlohmann::json hello = {{"instance", instance_}, {"replaces", replaces}};
  add_versions(limits_.versions, hello);
  connection.session->push(kHello, hello);
}

PeerLink::Connection* PeerLink::candidate(const Session& session) {
  const auto at = std::ranges::find_if(
      candidates_, [&](const auto& each) { return each->session.get() == &session; });
  return at == candidates_.end() ? nullptr : at->get();
}

void PeerLink::on_push(Session& session, const std::string& method, BytesView body) {
  Connection* waiting = candidate(session);
  if (waiting == nullptr) {
    if (method != kSelect && method != kHello) owner_.on_link_push(session, method, body);
  } else if (method == kHello) {
    on_hello(*waiting, body);
  } else if (method == kSelect && !is_chooser()) {
    activate(*waiting);
  } else {
    session.end("unexpected message before the session was selected");
  }
}

void PeerLink::on_hello(Connection& connection, BytesView body) {
  const auto hello = parse_json_body(body);
  if (!hello || connection.greeted) return connection.session->end("malformed hello");
  const Versions theirs = versions_of(*hello);
  const auto protocol = agree(limits_.versions, theirs, peer_);
  if (!protocol) return connection.session->end(protocol.error().text);
  connection.session->agreed(*protocol, theirs.software);
  connection.greeted = true;
  connection.instance = text_member(*hello, "instance");
  connection.replaces |= hello->is_object() && hello->value("replaces", nlohmann::json()) == true;
  if (is_chooser()) judge(connection);
}

void PeerLink::judge(Connection& connection) {
  if (!active_) return select(connection);
  const Session& active = *active_->session;
  const bool better = !active.via().empty() && connection.session->via().empty();
  if (connection.replaces || better) return select(connection);
  if (connection.instance != active_->instance) {
    active_->session->end("the peer restarted");  // which selects this one
    return;
  }
  active_->session->ping();
  connection.deadline = loop_.after(kProbe, [this, &connection] {
    if (active_) return active_->session->end("the peer made a new connection");
    select(connection);
  });
}

void PeerLink::on_pong(Session& session) {
  if (!is_chooser() || session.ended() || this->session() != &session) return;
  // Both ends have this one: what waits is the loser of a simultaneous dial. A candidate that has
  // not said hello yet may be a replacement.
  std::vector<Session*> losers;
  for (const auto& each : candidates_) {
    if (each->greeted) losers.push_back(each->session.get());
  }
  for (Session* loser : losers) loser->end("another connection of the two hosts is in use");
}

void PeerLink::select(Connection& connection) {
  connection.session->push(kSelect, nlohmann::json::object());
  activate(connection);
}

void PeerLink::activate(Connection& connection) {
  const auto at = std::ranges::find_if(candidates_,
                                       [&](const auto& each) { return each.get() == &connection; });
  CHECK(at != candidates_.end());
  auto chosen = std::move(*at);
  candidates_.erase(at);
  auto old = std::exchange(active_, nullptr);
  if (old) {
    owner_.on_link_down(peer_, "replaced by a new connection");
    retire(std::move(old));
  }
  active_ = std::move(chosen);
  active_->deadline.reset();
  active_since_ = loop_.now();
  last_error_.clear();
  dial_.reset();
  redial_.reset();
  drop_candidates("another connection of the two hosts is in use");
  schedule_renewal();
  owner_.on_link_up(*active_->session);
}

void PeerLink::drop_candidates(const std::string& reason) {
  while (!candidates_.empty()) candidates_.front()->session->end(reason);
}

// --- ends

void PeerLink::on_request(Session& session, const std::string& method, const nlohmann::json& body,
                          Responder responder) {
  if (candidate(session) != nullptr) return responder.fail("the session is not selected yet");
  owner_.on_link_request(session, method, body, std::move(responder));
}

void PeerLink::on_closed(Session& session, const std::string& reason) {
  if (this->session() == &session) {
    bury(std::exchange(active_, nullptr));
    return on_active_lost(reason);
  }
  for (Connections* list : {&candidates_, &retired_}) {
    const auto at = std::ranges::find_if(
        *list, [&](const auto& each) { return each->session.get() == &session; });
    if (at == list->end()) continue;
    if (list == &candidates_ && !active_) last_error_ = reason;
    bury(std::move(*at));
    list->erase(at);
    break;
  }
  if (!active_ && candidates_.empty() && !dial_) schedule_dial();
}

void PeerLink::on_active_lost(const std::string& reason) {
  last_error_ = reason;
  renewal_.reset();
  if (loop_.now() - active_since_ >= limits_.stable_after) backoff_ = kFirstBackoff;
  owner_.on_link_down(peer_, reason);
  if (active_) return;  // the owner's doing
  const auto next =
      std::ranges::find_if(candidates_, [](const auto& each) { return each->greeted; });
  if (is_chooser() && next != candidates_.end()) return select(**next);
  if (candidates_.empty() && !dial_) schedule_dial();
}

void PeerLink::retire(std::unique_ptr<Connection> old) {
  while (retired_.size() >= kMaxRetired) retired_.front()->session->end("replaced");
  old->deadline = loop_.after(
      kRetireFor, [&session = *old->session] { session.end("replaced by a new connection"); });
  retired_.push_back(std::move(old));
}

void PeerLink::bury(std::unique_ptr<Connection> connection) {
  connection->deadline.reset();
  buried_.push_back(std::move(connection));
  sweep_ = loop_.after(Nanoseconds(0), [this] { buried_.clear(); });
}

// --- renewal

// The dialler of a session makes a new handshake in time; whoever has addresses tries to replace a
// relayed session by a direct one.
void PeerLink::schedule_renewal() {
  renewal_.reset();
  const Session& session = *active_->session;
  Nanoseconds wait = active_since_ + limits_.max_age - loop_.now();
  if (!session.via().empty() && !addresses_.empty()) {
    wait = std::min(wait, limits_.direct_retry);
  } else if (!session.is_initiator()) {
    return;
  }
  if (wanted_) renewal_ = loop_.after(std::max(wait, limits_.stable_after), [this] { renew(); });
}

void PeerLink::renew() {
  if (!active_ || dial_) return;
  const bool old = loop_.now() - active_since_ >= limits_.max_age;
  start_dial(old && !active_->session->via().empty());
}

}  // namespace godwit::session
