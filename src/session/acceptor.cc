#include "session/acceptor.hh"

#include <algorithm>

#include "session/protocols.hh"

namespace godwit::session {

namespace {

// An IPv4 address, or the 64 bits of an IPv6 address that one customer has (RFC 6177).
std::string address_of(const os::ByteStream& stream, const std::string& via) {
  if (!via.empty()) return via;
  const auto peer = os::Endpoint::parse(stream.peer());
  if (!peer) return stream.peer();
  const std::size_t bytes = peer->is_ipv6 ? 8 : 4;
  return {peer->address.begin(), peer->address.begin() + static_cast<std::ptrdiff_t>(bytes)};
}

}  // namespace

Acceptor::Acceptor(os::Loop& loop, const crypto::Identity& identity, Handlers handlers,
                   AcceptorLimits limits)
    : loop_(loop),
      identity_(identity),
      tls_(identity, server_protocols()),
      handlers_(std::move(handlers)),
      limits_(limits) {}

Acceptor::~Acceptor() = default;

os::Endpoint Acceptor::listen(const os::Endpoint& at) {
  listener_ = os::Listener::tcp(
      loop_, at, [this](std::unique_ptr<os::SocketStream> stream, const os::Accepted&) {
        accept(std::move(stream), "");
      });
  return listener_->local();
}

void Acceptor::trust(std::vector<crypto::TrustedFleet> fleets) {
  tls_ = crypto::TlsContext(identity_, server_protocols(), std::move(fleets));
}

void Acceptor::make_room(const std::string& address) {
  const auto same = [&](const HalfOpen& other) { return other.address == address; };
  const auto of_address = static_cast<std::size_t>(std::ranges::count_if(half_open_, same));
  const bool crowded = of_address >= limits_.half_open_per_address;
  if (!crowded && half_open_.size() < limits_.half_open) return;
  const auto oldest = crowded ? std::ranges::find_if(half_open_, same) : half_open_.begin();
  ++counters_.displaced;
  half_open_.erase(oldest);
}

void Acceptor::accept(std::unique_ptr<os::ByteStream> stream, std::string via) {
  const std::string address = address_of(*stream, via);
  make_room(address);
  HalfOpen& half_open = half_open_.emplace_back();
  half_open.address = address;
  half_open.via = std::move(via);
  half_open.stream =
      std::make_unique<TlsStream>(loop_, std::move(stream), crypto::TlsEngine::server(tls_));
  half_open.timeout = loop_.after(limits_.handshake, [this, &half_open] {
    ++counters_.timed_out;
    drop(half_open);
  });
  half_open.stream->handshake(
      [this, &half_open](Result<> result) { on_handshake(half_open, std::move(result)); });
}

void Acceptor::on_handshake(HalfOpen& half_open, Result<> result) {
  if (!result) return refuse(half_open, result.error().text);
  Handler* next = handler(half_open.stream->tls().alpn(), !half_open.via.empty());
  if (next == nullptr) return refuse(half_open, "protocol refused here");
  ++counters_.accepted;
  auto stream = std::move(half_open.stream);
  const std::string via = half_open.via;
  drop(half_open);
  (*next)(std::move(stream), via);
}

Acceptor::Handler* Acceptor::handler(const std::string& alpn, bool relayed) {
  Handler* found = nullptr;
  if (alpn == kSessionAlpn) found = &handlers_.session;
  if (alpn == kLaneAlpn) found = &handlers_.lane;
  if (alpn == kRelayAlpn && !relayed) found = &handlers_.relay;
  if (alpn == kJoinAlpn && !relayed) found = &handlers_.join;
  if (alpn == kApiAlpn && !relayed) found = &handlers_.api;
  if (alpn == kTrustAlpn && !relayed) found = &handlers_.trust;
  return found != nullptr && *found ? found : nullptr;
}

// Closing a socket with unread bytes resets it, and the reset would overtake the alert that says
// why: let the peer go first, for a moment.
void Acceptor::refuse(HalfOpen& half_open, const std::string& reason) {
  ++counters_.refused;
  half_open.refused = true;
  half_open.stream->finish();
  half_open.timeout = loop_.after(half_open.stream->drained() ? Nanoseconds(0) : limits_.linger,
                                  [this, &half_open] { drop(half_open); });
  if (handlers_.refused) handlers_.refused(half_open.stream->peer(), reason);
}

void Acceptor::drop(HalfOpen& half_open) {
  half_open_.remove_if([&](const HalfOpen& other) { return &other == &half_open; });
}

}  // namespace godwit::session
