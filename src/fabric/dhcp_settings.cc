#include "fabric/dhcp_settings.hh"

#include <algorithm>

namespace godwit::fabric {
namespace {

using nlohmann::json;
using State = net::DhcpLease::State;

constexpr std::uint64_t kMostSeconds = 10ULL * 365 * 24 * 3600;

void read_range(Fields& fields, net::DhcpNetwork& network) {
  std::string text;
  fields.text("range", text);
  if (text.empty()) return;
  const std::size_t dash = text.find('-');
  const auto first = parse_ip(text.substr(0, dash));
  const auto last = dash == std::string::npos ? first : parse_ip(text.substr(dash + 1));
  if (!first || !last) {
    return fields.fail(fmt::format("'{}' is no range, like 10.7.0.100-10.7.0.200", text));
  }
  network.first = *first;
  network.last = *last;
}

void read_network(Fields& fields, net::DhcpNetwork& network) {
  net::DhcpOptions& options = network.options;
  fields.address("prefix", network.prefix)
      .address("router", options.router)
      .addresses("dns", options.dns)
      .text("domain", options.domain)
      .number("mtu", options.mtu)
      .number("lease_s", network.lease_s);
  read_range(fields, network);
  fields.each("routes", [&](Fields& each) {
    net::DhcpRoute& route = options.routes.emplace_back();
    each.address("to", route.to).address("via", route.via);
  });
  options.length = network.prefix.length;
}

json to_json(const net::DhcpNetwork& network) {
  const net::DhcpOptions& options = network.options;
  json object = {{"prefix", network.prefix.text()}, {"lease_s", network.lease_s}};
  if (network.first != Ip{}) {
    object["range"] = network.first.text() + "-" + network.last.text();
  }
  if (options.router) object["router"] = options.router->text();
  for (const Ip& dns : options.dns) object["dns"].push_back(dns.text());
  if (!options.domain.empty()) object["domain"] = options.domain;
  if (options.mtu != 0) object["mtu"] = options.mtu;
  for (const auto& [to, via] : options.routes) {
    object["routes"].push_back({{"to", to.text()}, {"via", via.text()}});
  }
  return object;
}

const net::DhcpServer& as_server(const net::Component& component) {
  return dynamic_cast<const net::DhcpServer&>(component);
}

std::string_view to_text(State state) {
  switch (state) {
    case State::offered:
      return "offered";
    case State::bound:
      return "bound";
    case State::declined:
      return "declined";
  }
  return "";
}

std::uint64_t seconds_left(const net::DhcpLease& lease, Instant now) {
  return static_cast<std::uint64_t>(std::max<Nanoseconds>(lease.ends - now, {}) / seconds(1));
}

// Also of what is no text: names are whatever clients say.
std::string printable(const std::string& text) {
  std::string shown = text;
  std::ranges::replace_if(shown, [](char c) { return c < ' ' || c > '~'; }, '?');
  return shown;
}

}  // namespace

std::unique_ptr<Settings> DhcpSettings::copy() const {
  return std::make_unique<DhcpSettings>(*this);
}

void DhcpSettings::read(Fields& fields) {
  fields.address("address", config_.address).mac("mac", mac_);
  if (fields.has("networks")) config_.networks.clear();
  fields.each("networks",
              [this](Fields& each) { read_network(each, config_.networks.emplace_back()); });
  if (fields.has("reservations")) config_.reservations.clear();
  fields.each("reservations", [this](Fields& each) {
    net::DhcpReservation& reservation = config_.reservations.emplace_back();
    each.mac("mac", reservation.mac).address("address", reservation.address);
  });
}

void DhcpSettings::read_port(const std::string& /*port*/, Fields& /*fields*/) {}
void DhcpSettings::forget_port(const std::string& /*port*/) {}

Result<> DhcpSettings::check(const PortPlaces& ports) const {
  if (ports.size() != 1) return fail("a DHCP server has one port; it serves more through relays");
  return net::check(config_);
}

json DhcpSettings::to_json() const {
  json object = {{"address", config_.address.text()},
                 {"networks", json::array()},
                 {"reservations", json::array()}};
  if (mac_) object["mac"] = net::to_text(*mac_);
  for (const auto& network : config_.networks) {
    object["networks"].push_back(fabric::to_json(network));
  }
  for (const auto& [mac, address] : config_.reservations) {
    object["reservations"].push_back({{"mac", net::to_text(mac)}, {"address", address.text()}});
  }
  return object;
}

json DhcpSettings::port_to_json(const std::string& /*port*/) const { return json::object(); }

net::DhcpConfig DhcpSettings::config(const PortPlaces& ports) const {
  net::DhcpConfig config = config_;
  config.port = ports.begin()->second.index;
  config.mac = mac_.value_or(mac_of(ports.begin()->second.id));
  return config;
}

std::unique_ptr<net::Component> DhcpSettings::make(const PortPlaces& ports,
                                                   std::uint64_t /*seed*/) const {
  return std::make_unique<net::DhcpServer>(config(ports));
}

void DhcpSettings::configure(net::Component& component, const PortPlaces& ports) const {
  dynamic_cast<net::DhcpServer&>(component).configure(config(ports));
}

json DhcpSettings::describe(const net::Component& component) const {
  return {{"leased", std::ranges::count(as_server(component).leases(), State::bound,
                                        &net::DhcpLease::state)}};
}

json DhcpSettings::table(const net::Component& component, std::string_view /*name*/,
                         const PortPlaces& /*ports*/, Instant now) const {
  json rows = json::array();
  for (const net::DhcpLease& lease : as_server(component).leases()) {
    rows.push_back({{"address", lease.address.text()},
                    {"mac", net::to_text(lease.mac)},
                    {"host", printable(lease.host)},
                    {"state", to_text(lease.state)},
                    {"remaining_s", seconds_left(lease, now)}});
  }
  return rows;
}

std::uint64_t DhcpSettings::changes(const net::Component& component) const {
  return as_server(component).changes();
}

// What was only offered is offered again.
json DhcpSettings::state(const net::Component& component, Instant now) const {
  json leases = json::array();
  for (const net::DhcpLease& lease : as_server(component).leases()) {
    if (lease.state == State::offered) continue;
    leases.push_back({{"address", lease.address.text()},
                      {"mac", net::to_text(lease.mac)},
                      {"identifier", to_hex(lease.identifier)},
                      {"host", to_hex(as_bytes(lease.host))},
                      {"declined", lease.state == State::declined},
                      {"remaining_s", seconds_left(lease, now)}});
  }
  return {{"leases", leases}};
}

void DhcpSettings::restore(net::Component& component, const json& state, Instant now) const {
  std::vector<net::DhcpLease> leases;
  Fields fields(state);
  fields.each("leases", [&](Fields& each) {
    net::DhcpLease lease;
    std::string identifier, host;
    bool is_declined = false;
    std::uint64_t remaining = 0;
    each.address("address", lease.address)
        .mac("mac", lease.mac)
        .text("identifier", identifier)
        .text("host", host)
        .flag("declined", is_declined)
        .number("remaining_s", remaining, kMostSeconds);
    lease.state = is_declined ? State::declined : State::bound;
    lease.identifier = from_hex(identifier);
    lease.host = as_text(from_hex(host));
    lease.ends = now + seconds(remaining);
    if (each.done()) leases.push_back(std::move(lease));
  });
  dynamic_cast<net::DhcpServer&>(component).restore(leases);
}

}  // namespace godwit::fabric
