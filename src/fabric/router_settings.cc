#include "fabric/router_settings.hh"

#include <algorithm>

namespace godwit::fabric {
namespace {

using nlohmann::json;

constexpr const char* kInside = "inside";
constexpr const char* kOutside = "outside";
constexpr std::uint32_t kMostNeighbours = 1 << 20;

// The same wherever a gateway with this address stands: locally administered, from its first
// address (FNV-1a).
net::Mac shared_mac_of(const net::RouterPort& port) {
  constexpr net::Mac kPrefix = 0x026777000000;
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : port.addresses.front().address.text()) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  }
  return kPrefix | (hash & 0xffffff);
}

std::string name_of(net::PortIndex index, const PortPlaces& ports) {
  const auto found =
      std::ranges::find(ports, index, [](const auto& each) { return each.second.index; });
  return found != ports.end() ? found->first : "";
}

}  // namespace

RouterSettings::RouterSettings(Kind kind) : kind_(kind) {
  if (kind_ == Kind::nat) rules_.masquerade_by_default(kOutside);
}

std::unique_ptr<Settings> RouterSettings::copy() const {
  return std::make_unique<RouterSettings>(*this);
}

std::vector<std::string> RouterSettings::usual_ports() const {
  return kind_ == Kind::nat ? std::vector<std::string>{kInside, kOutside}
                            : std::vector<std::string>{};
}

void RouterSettings::read(Fields& fields) {
  if (fields.has("routes")) routes_.clear();
  fields.each("routes", [this](Fields& each) {
    Route& route = routes_.emplace_back();
    each.address("to", route.route.to)
        .address("via", route.route.via)
        .address("from", route.route.from)
        .text("port", route.port)
        .flag("drop", route.is_dropped);
    if (route.is_dropped == (route.route.via || !route.port.empty())) {
      each.fail("a route has a router (via) or a port, or drops (drop)");
    }
  });
  fields.number("most_neighbours", most_neighbours_, kMostNeighbours, 1);
  rules_.read_filter(fields);
  rules_.read_nat(fields);
}

void RouterSettings::read_port(const std::string& name, Fields& fields) {
  Port& port = ports_[name];
  fields.addresses("address", port.settings.addresses)
      .mac("mac", port.mac)
      .number("mtu", port.settings.mtu)
      .flag("shared", port.is_shared)
      .flag("proxy", port.settings.is_proxy)
      .flag("advertise", port.settings.advertises)
      .addresses("dns", port.settings.dns)
      .address("relay", port.settings.dhcp_relay);
}

void RouterSettings::forget_port(const std::string& port) {
  ports_.erase(port);
  std::erase_if(routes_, [&](const Route& route) { return route.port == port; });
}

Result<> RouterSettings::check(const PortPlaces& ports) const {
  for (const auto& [name, port] : ports_) {
    if (port.is_shared && port.settings.addresses.empty()) {
      return fail("port {}: what is shared is an address", name);
    }
  }
  for (const Route& route : routes_) {
    if (!route.port.empty() && !ports.contains(route.port)) {
      return fail("the way to {}: '{}' is no port", route.route.to.text(), route.port);
    }
  }
  const auto made = config(ports);
  return made ? net::check(*made) : Result<>(std::unexpected(made.error()));
}

json RouterSettings::to_json() const {
  json routes = json::array();
  for (const Route& each : routes_) {
    json& object = routes.emplace_back(json{{"to", each.route.to.text()}});
    if (each.route.via) object["via"] = each.route.via->text();
    if (each.route.from) object["from"] = each.route.from->text();
    if (!each.port.empty()) object["port"] = each.port;
    if (each.is_dropped) object["drop"] = true;
  }
  json object = {{"routes", routes}, {"most_neighbours", most_neighbours_}};
  rules_.filter_to_json(object);
  rules_.nat_to_json(object);
  return object;
}

json RouterSettings::port_to_json(const std::string& name) const {
  const auto& [settings, mac, is_shared] = ports_.at(name);
  json object = {{"address", json::array()}, {"mtu", settings.mtu}};
  for (const IpPrefix& each : settings.addresses) object["address"].push_back(each.text());
  if (mac) object["mac"] = net::to_text(*mac);
  for (const auto& [key, flag] :
       {std::pair("shared", is_shared), std::pair("proxy", settings.is_proxy),
        std::pair("advertise", settings.advertises)}) {
    if (flag) object[key] = true;
  }
  for (const Ip& dns : settings.dns) object["dns"].push_back(dns.text());
  if (settings.dhcp_relay) object["relay"] = settings.dhcp_relay->text();
  return object;
}

Result<net::RouterConfig> RouterSettings::config(const PortPlaces& ports) const {
  net::RouterConfig config{.most_neighbours = most_neighbours_};
  for (const auto& [name, port] : ports_) {
    const PortPlace& place = ports.at(name);
    net::RouterPort& made = config.ports[place.index] = port.settings;
    made.mac = port.mac.value_or(mac_of(place.id));
    if (port.is_shared) made.shared_mac = shared_mac_of(made);
  }
  for (const Route& each : routes_) {
    net::Route& made = config.routes.emplace_back(each.route);
    if (!each.port.empty()) made.port = ports.at(each.port).index;
  }
  auto tracker = rules_.config(ports);
  if (!tracker) return std::unexpected(tracker.error());
  if (!rules_.is_empty()) config.tracker = *std::move(tracker);
  return config;
}

std::unique_ptr<net::Component> RouterSettings::make(const PortPlaces& ports,
                                                     std::uint64_t seed) const {
  return std::make_unique<net::Router>(config(ports).value(), seed);
}

void RouterSettings::configure(net::Component& component, const PortPlaces& ports) const {
  dynamic_cast<net::Router&>(component).configure(config(ports).value());
}

json RouterSettings::describe(const net::Component& component) const {
  const auto& router = dynamic_cast<const net::Router&>(component);
  const net::Tracker* tracker = router.tracker();
  json shown = {{"neighbours", router.neighbours().entries().size()},
                {"flows", tracker != nullptr ? tracker->table().size() : 0}};
  for (const auto& [name, port] : ports_) {
    if (port.is_shared) shown["shared_macs"][name] = net::to_text(shared_mac_of(port.settings));
  }
  return shown;
}

json RouterSettings::neighbours(const net::Router& router, const PortPlaces& ports) const {
  json rows = json::array();
  for (const net::Neighbours::Entry& each : router.neighbours().entries()) {
    rows.push_back({{"address", each.who.ip.text()},
                    {"mac", each.mac ? net::to_text(*each.mac) : ""},
                    {"port", name_of(each.who.port, ports)}});
  }
  return rows;
}

json RouterSettings::table(const net::Component& component, std::string_view name,
                           const PortPlaces& ports, Instant now) const {
  const auto& router = dynamic_cast<const net::Router&>(component);
  if (name == "neighbours") return neighbours(router, ports);
  return name == "flows" ? flows_of(router.tracker(), now) : rule_counts_of(router.tracker());
}

std::vector<std::string_view> RouterSettings::tables() const {
  return {"neighbours", "flows", "rules"};
}

}  // namespace godwit::fabric
