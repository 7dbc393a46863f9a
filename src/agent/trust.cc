#include "agent/trust.hh"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/records.hh"
#include "base/host_name.hh"
#include "os/clock.hh"
#include "qemu/json.hh"
#include "session/join_messages.hh"
#include "session/protocols.hh"

namespace godwit::agent {
namespace {

constexpr const char* kWirePush = "wire";  // as within a fleet

std::string hex_of(const crypto::Certificate& ca) { return to_hex(ca.fingerprint()); }

}  // namespace

// Of one host, with its fleet's CA.
struct Trust::Card {
  crypto::Certificate ca;
  std::string fleet;  // as it calls itself
  std::string host;
  std::vector<std::string> addresses;
};

Trust::Trust(os::Loop& loop, store::Store& store, Events& events, Handlers handlers)
    : loop_(loop), store_(store), events_(events), handlers_(std::move(handlers)) {}

// ---- records ----

// Lists, where objects would do: what is taken out of a stored object stays in it (store.hh), and
// a port that is trusted no more must not.
nlohmann::json Trust::to_json(const Trusted& trusted) {
  nlohmann::json hosts = nlohmann::json::array(), ports = nlohmann::json::array();
  for (const auto& [name, addresses] : trusted.hosts) {
    hosts.push_back({{"name", name}, {"addresses", addresses}});
  }
  for (const auto& port : trusted.ports) {
    ports.push_back({{"name", port.name}, {"tenant", port.tenant}});
  }
  return {{"ca", trusted.fleet.ca.pem()}, {"hosts", hosts}, {"ports", ports}};
}

Trust::Trusted Trust::from_json(const std::string& name, const nlohmann::json& json) {
  const auto ca = crypto::Certificate::from_pem(text_field_or(json, "ca", ""));
  if (!ca)
    fail_setup("the agent's store holds a damaged record: fleet {}: {}", name, ca.error().text);
  Trusted trusted{.fleet = {.name = name, .ca = *ca}, .hosts = {}, .ports = {}};
  for (const auto& host : array_field(json, "hosts")) {
    trusted.hosts[text_field_or(host, "name", "")] = texts_field(host, "addresses");
  }
  for (const auto& port : array_field(json, "ports")) {
    trusted.ports.push_back(
        {.name = text_field_or(port, "name", ""), .tenant = text_field_or(port, "tenant", "")});
  }
  return trusted;
}

const Trust::Trusted* Trust::find(std::string_view fleet) const {
  const auto found = fleets_.find(fleet);
  return found == fleets_.end() ? nullptr : &found->second;
}

// ---- sessions ----

void Trust::go_online(const crypto::Identity& identity) {
  identity_ = identity;
  for (const auto& document : store_.list("trust")) {
    dial(fleets_.emplace(document.key, from_json(document.key, document.body)).first->second);
  }
  tell_acceptor();
}

void Trust::dial(Trusted& trusted) {
  if (!trusted.sessions) {
    trusted.sessions =
        std::make_unique<session::Sessions>(loop_, *identity_, trusted.fleet, session_handlers());
  }
  for (const auto& [name, texts] : trusted.hosts) {
    const std::string host = host_of_fleet(name, trusted.fleet.name);
    trusted.sessions->want(host, addresses(host));
  }
}

void Trust::tell_acceptor() const {
  std::vector<crypto::TrustedFleet> fleets;
  for (const auto& [name, trusted] : fleets_) fleets.push_back(trusted.fleet);
  handlers_.changed(std::move(fleets));
}

session::Sessions::Handlers Trust::session_handlers() {
  return {
      .on_up =
          [this](session::Session& session) {
            events_.publish("session", {{"peer", session.peer()}, {"state", "up"}, {"via", ""}});
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
            handlers_.request(peer_request(session, method, std::move(responder)), body);
          },
      .on_push =
          [this](session::Session& session, const std::string& method, BytesView body) {
            if (method == kWirePush) return handlers_.wire_control(session.peer(), body);
            refuse(session.peer(), method);
          },
      .on_relayed = {},
      .on_relaying = {}};
}

void Trust::refuse(const std::string& peer, const std::string& what) {
  if (const auto silent = refusals_.may_log(loop_.now())) {
    spdlog::warn("host {} says '{}', which is no business of another fleet's{}", peer, what,
                 *silent == 0 ? "" : fmt::format(" ({} more before it)", *silent));
  }
}

void Trust::accept(std::unique_ptr<session::TlsStream> stream) {
  const auto found = fleets_.find(fleet_of(stream->tls().peer_name()));
  // Trust may have ended during the handshake, and the name may be another fleet's by now.
  if (found == fleets_.end() ||
      stream->tls().peer_ca().fingerprint() != found->second.fleet.ca.fingerprint()) {
    return;
  }
  found->second.sessions->accept(std::move(stream), "");
}

session::Sessions* Trust::sessions_with(const std::string& host) const {
  const Trusted* trusted = find(fleet_of(host));
  return trusted == nullptr ? nullptr : trusted->sessions.get();
}

std::vector<session::Sessions::Status> Trust::status() const {
  std::vector<session::Sessions::Status> all;
  for (const auto& [name, trusted] : fleets_) {
    std::ranges::move(trusted.sessions->status(), std::back_inserter(all));
  }
  return all;
}

std::vector<os::Endpoint> Trust::addresses(const std::string& host) const {
  std::vector<os::Endpoint> endpoints;
  const Trusted* trusted = find(fleet_of(host));
  if (trusted == nullptr) return endpoints;
  const auto known = trusted->hosts.find(std::string(name_in_fleet(host)));
  if (known == trusted->hosts.end()) return endpoints;
  for (const auto& text : known->second) {
    if (const auto endpoint = os::Endpoint::parse(text, session::kDefaultPort)) {
      endpoints.push_back(*endpoint);
    }
  }
  return endpoints;
}

std::vector<os::Endpoint> Trust::addresses() const {
  std::vector<os::Endpoint> all;
  for (const auto& [name, trusted] : fleets_) {
    for (const auto& [host, texts] : trusted.hosts) {
      std::ranges::move(addresses(host_of_fleet(host, name)), std::back_inserter(all));
    }
  }
  return all;
}

void Trust::doubt_all() {
  for (const auto& each : status()) sessions_with(each.peer)->doubt(each.peer);
}

// ---- which ports ----

bool Trust::is_trusted(std::string_view fleet, const std::string& port,
                       const std::string& tenant) const {
  const Trusted* trusted = find(fleet);
  return trusted != nullptr &&
         std::ranges::find(trusted->ports, Port{port, tenant}) != trusted->ports.end();
}

std::vector<std::string> Trust::up(std::string_view fleet) const {
  std::vector<std::string> names;
  const Trusted* trusted = find(fleet);
  if (trusted == nullptr) return names;
  for (const auto& status : trusted->sessions->status()) {
    if (status.state == session::Sessions::Status::State::up) names.push_back(status.peer);
  }
  return names;
}

std::string Trust::fingerprint(std::string_view fleet) const {
  const Trusted* trusted = find(fleet);
  return trusted == nullptr ? std::string() : hex_of(trusted->fleet.ca);
}

// ---- the operator's word ----

Result<Trust::Card> Trust::read_card(const nlohmann::json& json) const {
  auto ca = crypto::Certificate::from_pem(text_field_or(json, "ca", ""));
  if (!ca)
    return fail("this is not the card of another fleet's host (godwit host trust offer): {}",
                ca.error().text);
  if (const auto good = ca->is_fleet_ca(); !good) return std::unexpected(good.error());
  const auto host = session::known_host_from_json({{"host", qemu::member(json, "host")},
                                                   {"site", "elsewhere"},
                                                   {"addresses", qemu::member(json, "addresses")}});
  if (!host) return std::unexpected(host.error());
  Card card{
      .ca = *ca, .fleet = ca->common_name(), .host = host->name, .addresses = host->addresses};
  // What the operator has read there is what the CA says.
  if (text_field_or(json, "fleet", "") != card.fleet) {
    return fail("the card says fleet '{}', its CA '{}': one of them was changed",
                text_field_or(json, "fleet", ""), card.fleet);
  }
  if (card.ca.fingerprint() == identity_->ca().fingerprint()) {
    return fail("this is the card of a host of our own fleet {}", card.fleet);
  }
  return card;
}

// What the fleet is called here. Names are chosen by strangers, so two may have the same one: what
// tells them apart is the CA.
Result<std::string> Trust::name_for(const Card& card, const std::string& as) const {
  for (const auto& [name, trusted] : fleets_) {
    if (trusted.fleet.ca.fingerprint() != card.ca.fingerprint()) continue;
    if (as.empty() || as == name) return name;
    return fail(
        "this fleet is known here as {}: to call it {}, remove it first "
        "(godwit host trust rm {})",
        name, as, name);
  }
  const std::string name = as.empty() ? card.fleet : as;
  if (!is_valid_name(name)) return fail("'{}' is not a name: use 1 to 63 of a-z, 0-9, '-'", name);
  if (const Trusted* other = find(name)) {
    return fail(
        "another fleet is known here as {}, with the CA {}, not {}: call this one "
        "something else (--as NAME)",
        name, hex_of(other->fleet.ca), hex_of(card.ca));
  }
  if (name == identity_->fleet()) {
    return fail("our own fleet is called {}: call the other one something else (--as NAME)", name);
  }
  if (fleets_.size() >= kMaxFleets) return fail("{} fleets are trusted already", kMaxFleets);
  return name;
}

Result<nlohmann::json> Trust::add(const nlohmann::json& request) {
  if (!identity_) return fail("this host has not joined a fleet: godwit host invite founds one");
  const auto card = read_card(qemu::member(request, "card"));
  if (!card) return std::unexpected(card.error());
  const auto name = name_for(*card, text_field_or(request, "as", ""));
  if (!name) return std::unexpected(name.error());
  Trusted trusted{.fleet = {.name = *name, .ca = card->ca}, .hosts = {}, .ports = {}};
  if (const Trusted* before = find(*name)) {
    trusted.hosts = before->hosts;
    trusted.ports = before->ports;
  }
  trusted.hosts[card->host] = card->addresses;
  const auto names = texts_field(request, "ports");
  if (names.empty()) return fail("name the ports that fleet {} may have wires to", *name);
  for (const auto& port : names) {
    // A port that is to come, and one that is made anew, has to be of the tenant that is meant.
    const std::string here = handlers_.tenant_of(port);
    const std::string tenant =
        text_field_or(request, "tenant", here.empty() ? std::string(kDefaultTenant) : here);
    if (!is_valid_name(port) || !is_valid_name(tenant)) {
      return fail("'{}' of tenant '{}' is not a port's name", port, tenant);
    }
    if (!here.empty() && here != tenant) {
      return fail("port {} is of tenant {}, not {}", port, here, tenant);
    }
    std::erase_if(trusted.ports, [&](const Port& each) { return each.name == port; });
    trusted.ports.push_back({.name = port, .tenant = tenant});
  }
  if (trusted.ports.size() > kMaxPorts || trusted.hosts.size() > kMaxHosts) {
    return fail("a fleet may have {} ports and {} hosts here", kMaxPorts, kMaxHosts);
  }
  if (auto kept = store_.record("trust", *name, to_json(trusted)); !kept) {
    return std::unexpected(kept.error());
  }
  const auto known = fleets_.find(*name);
  if (known != fleets_.end()) trusted.sessions = std::move(known->second.sessions);
  Trusted& now = fleets_.insert_or_assign(*name, std::move(trusted)).first->second;
  dial(now);
  tell_acceptor();
  return nlohmann::json{{"fleet", *name},
                        {"host", host_of_fleet(card->host, *name)},
                        {"fingerprint", hex_of(card->ca)}};
}

Result<> Trust::remove(const std::string& fleet, const std::vector<std::string>& ports) {
  const auto found = fleets_.find(fleet);
  if (found == fleets_.end()) return {};
  // Their wires first: whatever happens in between, none is left without trust.
  if (!ports.empty()) {
    Trusted& trusted = found->second;
    for (const auto& port : ports) handlers_.ends(fleet, port);
    std::erase_if(trusted.ports, [&](const Port& port) {
      return std::ranges::find(ports, port.name) != ports.end();
    });
    if (!trusted.ports.empty()) return store_.record("trust", fleet, to_json(trusted));
  }
  handlers_.ends(fleet, std::nullopt);
  store_.erase("trust", fleet);
  auto gone = fleets_.extract(found);
  tell_acceptor();
  std::shared_ptr<session::Sessions> sessions(std::move(gone.mapped().sessions));
  for (const auto& each : sessions->status()) sessions->forget(each.peer);
  loop_.post([sessions] {});  // they end in this turn
  return store_.catch_up();   // what is told to be over must be, also after a crash
}

nlohmann::json Trust::list(const std::string& tenant) const {
  nlohmann::json all = nlohmann::json::array();
  for (const auto& [name, trusted] : fleets_) {
    nlohmann::json ports = nlohmann::json::array(), hosts = nlohmann::json::array();
    for (const auto& port : trusted.ports) {
      if (!tenant.empty() && port.tenant != tenant) continue;
      ports.push_back({{"name", port.name}, {"tenant", port.tenant}});
    }
    if (ports.empty()) continue;  // it has nothing to do with this tenant
    for (const auto& status : trusted.sessions->status()) {
      const auto known = addresses(status.peer);
      const bool up = status.state == session::Sessions::Status::State::up;
      hosts.push_back({{"name", status.peer},
                       {"state", up ? "up" : "down"},
                       {"rtt_ms", to_ms(status.rtt)},
                       {"address", known.empty() ? "" : known.front().text()},
                       {"error", status.error}});
    }
    all.push_back({{"fleet", name},
                   {"fingerprint", hex_of(trusted.fleet.ca)},
                   {"ports", ports},
                   {"hosts", hosts}});
  }
  return all;
}

}  // namespace godwit::agent
