#include "agent/fleet.hh"

#include <spdlog/spdlog.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "agent/paced_socket.hh"
#include "agent/records.hh"
#include "os/random.hh"
#include "session/join_messages.hh"
#include "session/json_body.hh"
#include "session/protocols.hh"

namespace godwit::agent {
namespace {

constexpr std::size_t kMaxHosts = 1024;  // of a fleet; as many as there may be sessions
constexpr Nanoseconds kMaxInviteLife = std::chrono::hours(24 * 7);
constexpr const char* kHostsPush = "hosts";  // the hosts that the sender knows

std::chrono::sys_seconds wall_clock() {
  return std::chrono::floor<seconds>(std::chrono::system_clock::now());
}

std::string_view to_text(session::Sessions::Status::State state) {
  switch (state) {
    case session::Sessions::Status::State::down:
      return "down";
    case session::Sessions::Status::State::connecting:
      return "connecting";
    case session::Sessions::Status::State::up:
      return "up";
  }
  return "?";
}

}  // namespace

Fleet::Fleet(os::Loop& loop, const Config& config, store::Store& store, Events& events,
             Handlers handlers)
    : loop_(loop),
      config_(config),
      store_(store),
      events_(events),
      handlers_(std::move(handlers)),
      trust_(loop, store, events, trust_handlers()) {}

Fleet::~Fleet() = default;

void Fleet::start() {
  if (!std::filesystem::exists(config_.state_dir / "host.pem")) {
    spdlog::info(
        "host {} has not joined a fleet: `godwit join` on it, or `godwit host invite` to "
        "found one",
        config_.name);
    return;
  }
  auto identity = crypto::Identity::load(config_.state_dir);
  if (!identity) fail_setup("cannot use this host's certificate: {}", identity.error().text);
  if (identity->host_name() != config_.name) {
    fail_setup("this host joined its fleet as '{}', not '{}': start godwitd with --name {}",
               identity->host_name(), config_.name, identity->host_name());
  }
  go_online(std::move(*identity));
}

std::vector<session::KnownHost> Fleet::known() const {
  std::vector<session::KnownHost> hosts;
  for (const auto& document : store_.list("host")) {
    if (auto host = session::known_host_from_json(document.body)) hosts.push_back(std::move(*host));
  }
  return hosts;
}

void Fleet::know(const session::KnownHost& host) {
  if (host.name == config_.name) return;
  const nlohmann::json json = session::to_json(host);
  if (store_.find("host", host.name) != json) {
    store_.put("host", host.name, json);
    events_.publish("host", {{"name", host.name}, {"event", "known"}});
  }
  if (sessions_) sessions_->want(host.name, addresses(host.name));
}

// A host knows its own addresses best; hearsay serves to learn of a host at all.
bool Fleet::believes(const std::string& who, const std::string& about) const {
  if (store_.find("host", about)) return who == about;
  return store_.list("host").size() < kMaxHosts;
}

// ---- going online ----

void Fleet::found() {
  const auto ca = crypto::FleetCa::make(config_.name);
  auto identity = crypto::Identity::make(ca, config_.name);
  if (!identity) fail_setup("cannot make this host's certificate: {}", identity.error().text);
  for (const auto& saved : {ca.save(config_.state_dir), identity->save(config_.state_dir)}) {
    if (!saved) fail_setup("cannot found a fleet: {}", saved.error().text);
  }
  go_online(std::move(*identity));
}

void Fleet::go_online(crypto::Identity identity) {
  identity_ = std::move(identity);
  const auto port = os::Endpoint::any_ipv6(config_.port);
  sessions_ = std::make_unique<session::Sessions>(loop_, *identity_, session_handlers());
  if (std::filesystem::exists(config_.state_dir / "ca.key")) serve_joins();
  acceptor_ = std::make_unique<session::Acceptor>(loop_, *identity_, acceptor_handlers());
  acceptor_->listen(port);
  online(os::UdpSocket::bind(port));
  for (const auto& host : known()) sessions_->want(host.name, addresses(host.name));
  trust_.go_online(*identity_);
  watch_addresses();
  spdlog::info("host {} is online in fleet '{}', port {}", config_.name, identity_->fleet(),
               config_.port);
}

session::Sessions::Handlers Fleet::session_handlers() {
  return {
      .on_up =
          [this](session::Session& session) {
            events_.publish("session",
                            {{"peer", session.peer()}, {"state", "up"}, {"via", session.via()}});
            gossip(session);
            handlers_.up(session);
          },
      .on_down =
          [this](const std::string& peer, const std::string& reason) {
            events_.publish("session", {{"peer", peer}, {"state", "down"}, {"reason", reason}});
            handlers_.down(peer);
          },
      .on_request =
          [this](session::Session& session, const std::string& method, const nlohmann::json& body,
                 session::Responder responder) {
            on_request(session, method, body, std::move(responder));
          },
      .on_push =
          [this](session::Session& session, const std::string& method, BytesView body) {
            if (method == kWireControl) return handlers_.wire_control(session.peer(), body);
            if (method != kHostsPush) return handlers_.push(session.peer(), method, body);
            const auto hosts = session::parse_json_body(body);
            if (!hosts || !hosts->is_array()) return;
            for (const auto& json : *hosts) {
              const auto host = session::known_host_from_json(json);
              if (host && believes(session.peer(), host->name)) know(*host);
            }
          },
      .on_relayed = [this](std::unique_ptr<os::ByteStream> stream,
                           const std::string& via) { acceptor_->accept(std::move(stream), via); },
      // What passes must not drown the wires either, and its sender sees only the path to us.
      .on_relaying =
          [this](os::ByteStream& caller, os::ByteStream& target) {
            return [to_caller = std::make_unique<PacedSocket>(loop_, caller),
                    to_target = std::make_unique<PacedSocket>(loop_, target)](BytesView) {
              to_caller->wrote();
              to_target->wrote();
            };
          }};
}

session::Acceptor::Handlers Fleet::acceptor_handlers() {
  return {
      .session = [this](std::unique_ptr<session::TlsStream> stream,
                        std::string via) { sessions_->accept(std::move(stream), std::move(via)); },
      .lane =
          [this](std::unique_ptr<session::TlsStream> stream, const std::string&) {
            const std::string peer = stream->tls().peer_name();
            handlers_.lane(peer, std::move(stream));
          },
      .relay = [this](std::unique_ptr<session::TlsStream> stream,
                      const std::string&) { sessions_->accept_relay_leg(std::move(stream)); },
      .join =
          [this](std::unique_ptr<session::TlsStream> stream, const std::string&) {
            if (join_server_) join_server_->accept(std::move(stream));
          },
      .api = [this](std::unique_ptr<session::TlsStream> stream,
                    const std::string&) { handlers_.api(std::move(stream)); },
      .trust = [this](std::unique_ptr<session::TlsStream> stream,
                      const std::string&) { trust_.accept(std::move(stream)); },
      .refused =
          [this](const std::string& address, const std::string& reason) {
            const auto silent = refusals_.may_log(loop_.now());
            if (!silent) return;
            const auto more = *silent == 0 ? "" : fmt::format(" ({} more before it)", *silent);
            spdlog::warn("refused a connection from {}: {}{}", address, reason, more);
          }};
}

void Fleet::gossip(session::Session& session) {
  nlohmann::json hosts = nlohmann::json::array({session::to_json(own_record())});
  for (const auto& host : known()) hosts.push_back(session::to_json(host));
  if (const auto pushed = session.push(kHostsPush, hosts); !pushed) {
    spdlog::warn("host {}: {}", session.peer(), pushed.error().text);
  }
}

void Fleet::on_request(session::Session& session, const std::string& method,
                       const nlohmann::json& body, session::Responder responder) {
  handlers_.request(peer_request(session, method, std::move(responder)), body);
}

// ---- joining ----

void Fleet::serve_joins() {
  auto ca = crypto::FleetCa::load(config_.state_dir);
  if (!ca) fail_setup("cannot use the fleet's CA: {}", ca.error().text);
  std::vector<session::Invites::Record> records;
  for (const auto& document : store_.list("invite")) {
    const Bytes hash = from_hex(document.key);
    session::Invites::Record record;
    if (hash.size() != record.secret_hash.size()) continue;
    std::ranges::copy(hash, record.secret_hash.begin());
    record.expires = crypto::WallTime(seconds(document.body.value("expires", 0L)));
    records.push_back(record);
  }
  invites_ =
      std::make_unique<session::Invites>(ca->certificate().fingerprint(), std::move(records));
  join_server_ = std::make_unique<session::JoinServer>(
      loop_, std::move(*ca), *invites_,
      session::JoinServer::Hooks{
          .admit = [this](const session::KnownHost& joining) -> Result<> {
            if (joining.name == config_.name || store_.find("host", joining.name)) {
              return fail("the fleet has a host '{}' already: choose another --name", joining.name);
            }
            return {};
          },
          .joined = [this](const session::KnownHost& host) -> Result<> {
            save_invites();
            // Used up must be used up, also after a crash.
            if (auto kept = store_.catch_up(); !kept) return kept;
            know(host);
            for (const auto& peer : up()) {
              if (session::Session* session = sessions_->find(peer)) gossip(*session);
            }
            return {};
          },
          .hosts =
              [this] {
                auto hosts = known();
                hosts.push_back(own_record());
                return hosts;
              }});
}

void Fleet::save_invites() {
  for (const auto& document : store_.list("invite")) store_.erase("invite", document.key);
  for (const auto& record : invites_->records()) {
    store_.put("invite", to_hex(record.secret_hash),
               {{"expires", record.expires.time_since_epoch().count()}});
  }
}

Result<> Fleet::be_founder() {
  if (!identity_) found();
  if (invites_) return {};
  return fail("host {} does not keep the CA of fleet '{}': do this on its founder", config_.name,
              identity_->fleet());
}

Result<nlohmann::json> Fleet::invite(Nanoseconds ttl) {
  if (ttl <= Nanoseconds(0) || ttl > kMaxInviteLife) {
    return fail("an invitation lasts at most {}", to_text(kMaxInviteLife));
  }
  if (const auto founder = be_founder(); !founder) return std::unexpected(founder.error());
  const auto token = invites_->make(wall_clock(), duration_cast<seconds>(ttl));
  if (!token) return std::unexpected(token.error());
  save_invites();
  const auto own = own_record();
  if (own.addresses.empty())
    return fail("host {} has no address that others could reach: give godwitd an --address",
                config_.name);
  const std::string text = token->text();
  return nlohmann::json{
      {"token", text},
      {"command", fmt::format("godwit join {}@{}", text, own.addresses.front())},
      {"expires", (wall_clock() + duration_cast<seconds>(ttl)).time_since_epoch().count()}};
}

void Fleet::join(const std::string& text, std::function<void(Result<nlohmann::json>)> done) {
  if (identity_) {
    return done(fail("host {} belongs to fleet '{}' already", config_.name, identity_->fleet()));
  }
  if (joining_) return done(fail("host {} is joining a fleet at this moment", config_.name));
  const auto target = session::JoinTarget::parse(text);
  if (!target) return done(std::unexpected(target.error()));
  const auto at = os::resolve(target->host, target->port);
  if (!at) return done(std::unexpected(at.error()));
  joining_ = std::make_unique<session::JoinClient>(
      loop_,
      session::JoinClient::Request{.token = target->token,
                                   .at = *at,
                                   .host = config_.name,
                                   .site = config_.site,
                                   .port = config_.port,
                                   .addresses = own_record().addresses},
      [this, done = std::move(done)](Result<session::Joined> result) {
        auto answer = joined(std::move(result));
        loop_.post([this] { joining_.reset(); });
        done(std::move(answer));
      });
}

Result<nlohmann::json> Fleet::joined(Result<session::Joined> result) {
  if (!result) return std::unexpected(result.error());
  if (const auto saved = result->identity.save(config_.state_dir); !saved) {
    return std::unexpected(saved.error());
  }
  for (const auto& host : result->hosts) know(host);
  try {
    go_online(std::move(result->identity));
  } catch (const SetupError& error) {
    return fail("joined, but cannot open the port: {}", error.what());
  }
  return nlohmann::json{{"fleet", identity_->fleet()}, {"hosts", hosts()}};
}

// ---- what is asked of us ----

nlohmann::json Fleet::describe() const {
  nlohmann::json sessions = nlohmann::json::array();
  if (sessions_) {
    auto all = sessions_->status();
    std::ranges::move(trust_.status(), std::back_inserter(all));
    for (const auto& status : all) {
      sessions.push_back({{"peer", status.peer},
                          {"state", to_text(status.state)},
                          {"rtt_ms", to_ms(status.rtt)},
                          {"via", status.via},
                          {"address", status.address},
                          {"protocol", status.protocol},
                          {"version", status.version},
                          {"error", status.error}});
    }
  }
  const auto door = acceptor_ ? acceptor_->counters() : session::Acceptor::Counters{};
  const auto own = own_addresses();
  return {{"name", config_.name},
          {"site", config_.site},
          {"handshakes",
           {{"accepted", door.accepted},
            {"refused", door.refused},
            {"timed_out", door.timed_out},
            {"displaced", door.displaced}}},
          {"fleet", identity_ ? identity_->fleet() : ""},
          {"address", own.empty() ? "" : own.front().address_text()},
          {"addresses", own_record().addresses},
          {"port", config_.port},
          {"founder", invites_ != nullptr},
          {"sessions", sessions}};
}

nlohmann::json Fleet::hosts() const {
  nlohmann::json list = nlohmann::json::array();
  const auto own = own_record();
  list.push_back({{"name", own.name},
                  {"site", own.site},
                  {"state", "self"},
                  {"rtt_ms", 0},
                  {"address", own.addresses.empty() ? "" : own.addresses.front()}});
  for (const auto& host : known()) {
    list.push_back({{"name", host.name},
                    {"site", host.site},
                    {"state", is_up(host.name) ? "up" : "down"},
                    {"rtt_ms", to_ms(rtt(host.name))},
                    {"address", host.addresses.empty() ? "" : host.addresses.front()}});
  }
  return list;
}

std::vector<std::string> Fleet::hosts_called(const std::string& name) const {
  std::vector<std::string> of_site;
  if (config_.site == name) of_site.push_back(config_.name);
  for (const auto& host : known()) {
    if (host.name == name) return {name};
    if (host.site == name) of_site.push_back(host.name);
  }
  return of_site;
}

Result<> Fleet::push(const std::string& peer, const std::string& method, BytesView body) {
  session::Session* session = find(peer);
  if (session == nullptr) return fail("no session with {}", peer);
  return session->push_binary(method, body);
}

const crypto::Certificate* Fleet::ca() const { return identity_ ? &identity_->ca() : nullptr; }

std::map<std::string, std::vector<std::string>> Fleet::host_addresses() const {
  std::map<std::string, std::vector<std::string>> addresses;
  for (const auto& host : known()) addresses[host.name] = host.addresses;
  addresses[config_.name] = own_record().addresses;
  return addresses;
}

void Fleet::broadcast(const std::string& method, const nlohmann::json& body) {
  for (const auto& peer : up()) {
    session::Session* session = sessions_->find(peer);
    if (session == nullptr) continue;
    if (const auto pushed = session->push(method, body); !pushed) {
      spdlog::warn("host {}: {}", peer, pushed.error().text);
    }
  }
}

// While one ends it tells so to those who wait for its answers: it is not up to them.
bool Fleet::is_up(const std::string& peer) const {
  const session::Session* session = find(peer);
  return session != nullptr && !session->ended();
}

std::vector<std::string> Fleet::up() const {
  std::vector<std::string> names;
  if (!sessions_) return names;
  for (const auto& status : sessions_->status()) {
    if (status.state == session::Sessions::Status::State::up) names.push_back(status.peer);
  }
  return names;
}

Nanoseconds Fleet::rtt(const std::string& peer) const {
  const session::Session* session = find(peer);
  return session == nullptr ? Nanoseconds(0) : session->rtt();
}

unsigned Fleet::protocol(const std::string& peer) const {
  const session::Session* session = find(peer);
  return session == nullptr ? 0 : session->protocol();
}

void Fleet::request(const std::string& peer, const std::string& method, const nlohmann::json& body,
                    Reply reply, Nanoseconds timeout) {
  if (!sessions_) return reply(fail("host {} has not joined a fleet", config_.name));
  session::Sessions* sessions = sessions_with(peer);
  if (sessions == nullptr) {
    return reply(
        fail("{}: the fleet of {} is not trusted: see godwit host trust ls", method, peer));
  }
  sessions->request(peer, method, body, std::move(reply), timeout);
}

void Fleet::open_lane(const std::string& peer, LaneReady ready) {
  sessions_->open_lane(peer,
                       [ready = std::move(ready)](Result<session::Dial::Reached> reached) mutable {
                         if (!reached) return ready(std::unexpected(reached.error()));
                         ready(std::unique_ptr<os::ByteStream>(std::move(reached->stream)));
                       });
}

}  // namespace godwit::agent
