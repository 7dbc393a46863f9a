// Where this host and others are to be found, and what happens when that changes.
#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>

#include "agent/fleet.hh"
#include "agent/records.hh"
#include "base/host_name.hh"
#include "os/address_monitor.hh"
#include "os/own_address.hh"

namespace godwit::agent {
namespace {

// Routed like the Internet, and nobody's (RFC 5737, RFC 3849).
const std::vector<os::Endpoint>& far_away() {
  static const std::vector<os::Endpoint> kFar = {*os::Endpoint::parse("192.0.2.1:9"),
                                                 *os::Endpoint::parse("[2001:db8::1]:9")};
  return kFar;
}

}  // namespace

// As configured; else what packets to the world leave with.
std::vector<os::Endpoint> Fleet::own_addresses() const {
  std::vector<os::Endpoint> own;
  for (const auto& address : config_.addresses) {
    const auto endpoint = os::Endpoint::parse(address, config_.port);
    if (endpoint) own.push_back(*endpoint);
  }
  if (!own.empty()) return own;
  for (const auto& to : far_away()) {
    auto source = os::source_towards(to);
    if (!source) continue;
    source->port = config_.port;
    own.push_back(*source);
  }
  if (!own.empty()) return own;
  const auto only = os::Endpoint::parse(os::own_address().address, config_.port);
  if (only) own.push_back(*only);
  return own;
}

session::KnownHost Fleet::own_record() const {
  session::KnownHost host{.name = config_.name, .site = config_.site, .addresses = {}};
  for (const auto& endpoint : own_addresses()) host.addresses.push_back(endpoint.text());
  return host;
}

std::vector<os::Endpoint> Fleet::addresses(const std::string& host) const {
  if (is_foreign(host)) return trust_.addresses(host);
  std::vector<os::Endpoint> endpoints;
  const auto document = store_.find("host", host);
  if (!document) return endpoints;
  for (const auto& text : texts_field(*document, "addresses")) {
    if (const auto endpoint = os::Endpoint::parse(text, config_.port))
      endpoints.push_back(*endpoint);
  }
  return endpoints;
}

// Addresses come and go with every vm; what matters is with which one packets leave for others.
std::set<os::Endpoint> Fleet::sources() const {
  std::set<os::Endpoint> used;
  const auto note = [&used](const os::Endpoint& to) {
    if (const auto source = os::source_towards(to)) used.insert(*source);
  };
  for (const auto& to : far_away()) note(to);
  for (const auto& host : known()) {
    for (const auto& to : addresses(host.name)) note(to);
  }
  for (const auto& to : trust_.addresses()) note(to);
  return used;
}

void Fleet::watch_addresses() {
  sources_ = sources();
  monitor_ = std::make_unique<os::AddressMonitor>(loop_, [this] {
    auto now = sources();
    if (now == sources_) return;
    sources_ = std::move(now);
    const auto own = own_record();
    spdlog::warn("this host's addresses changed: {}", fmt::join(own.addresses, ", "));
    events_.publish(
        "host",
        {{"name", config_.name}, {"event", "addresses changed"}, {"addresses", own.addresses}});
    handlers_.addresses_changed();
    for (const auto& peer : up()) {
      if (session::Session* session = sessions_->find(peer)) gossip(*session);
    }
    for (const auto& host : known()) doubt(host.name);
    trust_.doubt_all();
  });
}

void Fleet::doubt(const std::string& peer) {
  if (session::Sessions* sessions = sessions_with(peer)) sessions->doubt(peer);
}

}  // namespace godwit::agent
