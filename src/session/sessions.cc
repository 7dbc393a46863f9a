#include "session/sessions.hh"

#include <algorithm>

#include "base/check.hh"
#include "os/random.hh"
#include "os/socket.hh"
#include "session/protocols.hh"

namespace godwit::session {
namespace {

std::string new_instance() {
  std::array<std::byte, 8> raw;
  os::fill_random(raw);
  return to_hex(raw);
}

}  // namespace

Sessions::Sessions(os::Loop& loop, const crypto::Identity& identity, Handlers handlers,
                   LinkLimits limits, decltype(Network::connect) connect)
    : Sessions(loop, identity, crypto::TlsContext(identity, server_protocols()), std::nullopt,
               std::move(handlers), limits, std::move(connect)) {}

Sessions::Sessions(os::Loop& loop, const crypto::Identity& identity,
                   const crypto::TrustedFleet& fleet, Handlers handlers, LinkLimits limits,
                   decltype(Network::connect) connect)
    : Sessions(loop, identity, crypto::TlsContext(identity, fleet),
               Foreign{.we_choose = identity.ca().fingerprint() < fleet.ca.fingerprint()},
               std::move(handlers), limits, std::move(connect)) {}

Sessions::Sessions(os::Loop& loop, const crypto::Identity& identity, crypto::TlsContext tls,
                   std::optional<Foreign> foreign, Handlers handlers, LinkLimits limits,
                   decltype(Network::connect) connect)
    : loop_(loop),
      self_(identity.host_name()),
      instance_(new_instance()),
      foreign_(foreign),
      network_{loop, std::move(tls), std::move(connect)},
      handlers_(std::move(handlers)),
      limits_(limits),
      relay_(loop, self_, relay_hooks()) {
  if (!network_.connect) {
    network_.connect = [&loop](const os::Endpoint& to) { return os::tcp_connect(loop, to); };
  }
}

Sessions::~Sessions() = default;

Relay::Hooks Sessions::relay_hooks() {
  return {
      .direct_session =
          [this](const std::string& peer) {
            Session* session = find(peer);
            return session != nullptr && session->via().empty() ? session : nullptr;
          },
      .dial =
          [this](const std::string& peer, Relay::Leg leg) {
            dial_for(peer, kRelayAlpn, {}, false,
                     [leg = std::move(leg)](Result<Dial::Reached> reached) mutable {
                       if (!reached) return leg(std::unexpected(reached.error()));
                       leg(std::move(reached->stream));
                     });
          },
      .called =
          [this](std::unique_ptr<TlsStream> stream, const std::string& via) {
            if (handlers_.on_relayed) handlers_.on_relayed(std::move(stream), via);
          },
      .relayed = [this](os::ByteStream& caller, os::ByteStream& target) -> Relay::Passing {
        if (!handlers_.on_relaying) return [](BytesView) {};
        return handlers_.on_relaying(caller, target);
      },
  };
}

PeerLink* Sessions::link(const std::string& peer) const {
  const auto at = links_.find(peer);
  return at == links_.end() ? nullptr : at->second.get();
}

PeerLink& Sessions::make_link(const std::string& peer) {
  auto& link = links_[peer];
  if (link == nullptr) {
    PeerLinkOwner& owner = *this;
    const bool we_choose = foreign_ ? foreign_->we_choose : self_ < peer;
    link = std::make_unique<PeerLink>(loop_, we_choose, peer, instance_, limits_, owner);
  }
  return *link;
}

void Sessions::want(const std::string& peer, std::vector<os::Endpoint> addresses) {
  if (peer != self_) make_link(peer).want(std::move(addresses));
}

void Sessions::forget(const std::string& peer) {
  if (PeerLink* known = link(peer)) known->forget();
}

void Sessions::doubt(const std::string& peer) {
  std::vector<Session*> doubted;
  for (const auto& [name, link] : links_) {
    Session* session = link->session();
    if (session != nullptr && (name == peer || session->via() == peer)) doubted.push_back(session);
  }
  for (Session* session : doubted) {
    session->doubt(std::max<Nanoseconds>(kDoubtPatience, session->rtt() * 3));
  }
}

Session* Sessions::find(const std::string& peer) const {
  const PeerLink* known = link(peer);
  return known == nullptr ? nullptr : known->session();
}

std::vector<Sessions::Status> Sessions::status() const {
  std::vector<Status> all;
  for (const auto& [peer, link] : links_) {
    Status status;
    status.peer = peer;
    status.error = link->last_error();
    status.wanted = link->wanted();
    if (const Session* session = link->session()) {
      status.state = Status::State::up;
      status.rtt = session->rtt();
      status.via = session->via();
      status.address = session->peer_address();
      status.protocol = session->protocol();
      status.version = session->peer_version();
    } else if (link->wanted()) {
      status.state = Status::State::connecting;
    } else {
      continue;  // a stranger that left, or a forgotten one
    }
    all.push_back(std::move(status));
  }
  return all;
}

void Sessions::request(const std::string& peer, const std::string& method,
                       const nlohmann::json& body, Session::Reply reply, Nanoseconds timeout) {
  if (Session* session = find(peer)) {
    return session->request(method, body, std::move(reply), timeout);
  }
  const PeerLink* known = link(peer);
  const std::string why = known == nullptr              ? "it is not a known host"
                          : known->last_error().empty() ? "not connected yet"
                                                        : known->last_error();
  reply(fail("{}: no session with {}: {}", method, peer, why));
}

void Sessions::accept(std::unique_ptr<TlsStream> stream, std::string via) {
  const std::string peer = stream->tls().peer_name();
  if (peer == self_ || peer.empty()) return;  // a copied identity, or a dial to ourselves
  const std::size_t most = foreign_ ? kMaxForeignPeers : kMaxPeers;
  if (link(peer) == nullptr && links_.size() >= most) return;
  make_link(peer).add(std::move(stream), std::move(via));
}

void Sessions::accept_relay_leg(std::unique_ptr<TlsStream> stream) {
  relay_.accept(std::move(stream));
}

// Peers that may reach `peer` for us, those first that answer fastest.
std::vector<std::string> Sessions::relays_to(const std::string& peer) const {
  std::vector<const Session*> up;
  if (foreign_) return {};
  for (const auto& [name, link] : links_) {
    const Session* session = link->session();
    if (name != peer && session != nullptr && session->via().empty()) up.push_back(session);
  }
  std::ranges::sort(up, {}, [](const Session* session) { return session->rtt(); });
  std::vector<std::string> names;
  for (const Session* session : up) names.push_back(session->peer());
  return names;
}

std::unique_ptr<Dial> Sessions::dial(const std::string& peer, const char* alpn,
                                     std::vector<os::Endpoint> addresses,
                                     std::vector<std::string> relays, bool relays_first,
                                     Dial::Done done) {
  return std::make_unique<Dial>(
      network_,
      Dial::Plan{.peer = peer,
                 .alpn = alpn,
                 .addresses = std::move(addresses),
                 .relays = std::move(relays),
                 .relays_first = relays_first,
                 .call = [this](const std::string& relay, const std::string& to,
                                Dial::Leg leg) { relay_.call(relay, to, std::move(leg)); }},
      std::move(done));
}

std::unique_ptr<Dial> Sessions::dial_link(const std::string& peer,
                                          const std::vector<os::Endpoint>& addresses, bool relays,
                                          Dial::Done done) {
  return dial(peer, foreign_ ? kTrustAlpn : kSessionAlpn, addresses,
              relays ? relays_to(peer) : std::vector<std::string>{}, false, std::move(done));
}

// A dial that nobody but us holds.
void Sessions::dial_for(const std::string& peer, const char* alpn, std::vector<std::string> relays,
                        bool relays_first, Dial::Done done) {
  if (dials_.size() >= kMaxLaneDials) {
    return done(fail("{} connections are being made already", dials_.size()));
  }
  const PeerLink* known = link(peer);
  const std::uint64_t id = next_dial_++;
  dials_[id] = dial(peer, alpn, known == nullptr ? std::vector<os::Endpoint>{} : known->addresses(),
                    std::move(relays), relays_first,
                    [this, id, done = std::move(done)](Result<Dial::Reached> reached) mutable {
                      const auto over = dials_.extract(id);  // it goes when we return
                      done(std::move(reached));
                    });
}

void Sessions::open_lane(const std::string& peer, LaneDone done) {
  const Session* session = find(peer);
  std::vector<std::string> relays;
  if (session != nullptr && !session->via().empty()) relays.push_back(session->via());
  // The peer dialled us, perhaps because we cannot dial it: let it dial back.
  if (session != nullptr && session->via().empty() && !session->is_initiator()) {
    relays.push_back(peer);
  }
  // By the way of the session, which is known to work; only then by others.
  dial_for(peer, kLaneAlpn, std::move(relays), true, std::move(done));
}

void Sessions::on_link_up(Session& session) {
  if (handlers_.on_up) handlers_.on_up(session);
}

void Sessions::on_link_down(const std::string& peer, const std::string& reason) {
  if (handlers_.on_down) handlers_.on_down(peer, reason);
}

void Sessions::on_link_request(Session& session, const std::string& method,
                               const nlohmann::json& body, Responder responder) {
  if (!foreign_ && relay_.on_request(session, method, body, responder)) return;
  if (!handlers_.on_request) return responder.fail(fmt::format("unknown request {}", method));
  handlers_.on_request(session, method, body, std::move(responder));
}

void Sessions::on_link_push(Session& session, const std::string& method, BytesView body) {
  if (handlers_.on_push) handlers_.on_push(session, method, body);
}

}  // namespace godwit::session
