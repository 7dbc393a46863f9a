// What a router is told, and the tables that are made of it.
#include <algorithm>
#include <set>

#include "base/check.hh"
#include "net/router.hh"

namespace godwit::net {
namespace {

constexpr std::uint16_t kLeastMtu4 = 576, kLeastMtu6 = 1280;  // RFC 791, RFC 8200
constexpr std::size_t kMostRoutes = 1'000'000;

Result<> check_port(PortIndex index, const RouterPort& port) {
  if (index >= kMostPorts) return fail("a router has at most {} ports", kMostPorts);
  if (is_group(port.mac) || port.mac == 0) return fail("a router's port has a station's address");
  bool has_ip6 = false, has_ip4 = false;
  for (const IpPrefix& each : port.addresses) {
    const Ip ip = each.address;
    if (ip.is_multicast() || ip.is_loopback() || ip.is_unspecified() || ip.is_link_local()) {
      return fail("{} is no address for a router's port", each.text());
    }
    (ip.is4() ? has_ip4 : has_ip6) = true;
  }
  const std::uint16_t least = has_ip6 ? kLeastMtu6 : kLeastMtu4;
  if (port.mtu < least) return fail("an MTU is at least {} here", least);
  for (const Ip& dns : port.dns) {
    if (dns.is4()) return fail("{} is not of IPv6, as what is advertised", dns.text());
  }
  if (port.dns.size() > 16) return fail("at most 16 name servers are advertised");
  if (port.advertises && !has_ip6) return fail("a port that advertises has an IPv6 address");
  if (port.dhcp_relay && !(has_ip4 && port.dhcp_relay->is4())) {
    return fail("a DHCP relay has an IPv4 address, and so has its server");
  }
  return {};
}

}  // namespace

Result<> check(const RouterConfig& config) {
  std::set<Ip> own;
  std::set<IpPrefix> networks;
  for (const auto& [index, port] : config.ports) {
    if (auto good = check_port(index, port); !good) return good;
    for (const IpPrefix& each : port.addresses) {
      if (!own.insert(each.address).second) return fail("{} is there twice", each.address.text());
    }
    std::set<IpPrefix> here;
    for (const IpPrefix& each : port.addresses) here.insert(each.network());
    for (const IpPrefix& each : here) {
      if (!networks.insert(each).second) return fail("{} is at two ports", each.text());
    }
  }
  if (config.routes.size() > kMostRoutes) return fail("at most {} routes", kMostRoutes);
  for (const Route& route : config.routes) {
    const std::string to = route.to.text();
    if (!route.to.is_network()) {
      return fail("{} has bits behind its length: {}?", to, route.to.network().text());
    }
    if (route.via && route.via->is4() != route.to.address.is4()) {
      return fail("the way to {}, {}, is of the other kind", to, route.via->text());
    }
    if (route.from && route.from->address.is4() != route.to.address.is4()) {
      return fail("the way to {} from {}: they are of two kinds", to, route.from->text());
    }
    if (route.port && !config.ports.contains(*route.port)) {
      return fail("the way to {}: there is no such port", to);
    }
    if (!route.via || route.port) continue;
    const bool is_near = std::ranges::any_of(
        networks, [&](const auto& network) { return network.contains(*route.via); });
    if (!is_near) return fail("the way to {}: {} is in no port's network", to, route.via->text());
    if (own.contains(*route.via)) {
      return fail("the way to {}: {} is the router itself", to, route.via->text());
    }
  }
  return config.tracker ? check(*config.tracker) : Result<>{};
}

Router::Router(RouterConfig config, std::uint64_t seed)
    : seed_(seed), neighbours_(config.most_neighbours) {
  configure(std::move(config));
}

void Router::configure(RouterConfig config) {
  CHECK(check(config), "a configuration that was not checked");
  config_ = std::move(config);
  own_.clear();
  ports_.resize(config_.ports.empty() ? 0 : config_.ports.rbegin()->first + std::size_t{1});
  for (PortIndex i = 0; i < ports_.size(); ++i) {
    Port& port = ports_[i];
    const auto settings = config_.ports.find(i);
    if (settings == config_.ports.end()) {
      port = {};
      neighbours_.forget_port(i);
      continue;
    }
    if (port.settings != settings->second) port.is_announced = false;
    port.exists = true;
    port.settings = settings->second;
    for (const IpPrefix& each : port.settings.addresses) own_.insert(each.address);
  }
  make_routes();
  if (!config_.tracker) {
    tracker_.reset();
  } else if (tracker_) {
    tracker_->configure(*config_.tracker);
  } else {
    tracker_ = std::make_unique<Tracker>(*config_.tracker, seed_);
    if (keeps_state_) tracker_->begin_state();
  }
}

// In whose network this is.
std::optional<PortIndex> Router::port_with(Ip ip) const {
  std::optional<PortIndex> found;
  int longest = -1;
  for (const auto& [index, port] : config_.ports) {
    for (const IpPrefix& each : port.addresses) {
      if (!each.contains(ip) || each.length <= longest) continue;
      longest = each.length;
      found = index;
    }
  }
  return found;
}

// Networks of ports first: a route of the operator's that is equal counts instead.
void Router::make_routes() {
  hops_.clear();
  std::vector<std::pair<IpPrefix, RouteTable::Value>> main;
  std::map<IpPrefix, std::vector<std::pair<IpPrefix, RouteTable::Value>>> by_source;
  const auto add = [&](auto& routes, const IpPrefix& to, Hop hop) {
    routes.emplace_back(to, static_cast<RouteTable::Value>(hops_.size()));
    hops_.push_back(hop);
  };
  for (const auto& [index, port] : config_.ports) {
    for (const IpPrefix& each : port.addresses) add(main, each.network(), {.port = index});
  }
  for (const Route& route : config_.routes) {
    Hop hop{.port = route.port, .via = route.via};
    if (route.via && !hop.port) hop.port = port_with(*route.via);
    add(route.from ? by_source[*route.from] : main, route.to, hop);
  }
  routes_ = RouteTable(main);
  policies_.clear();
  for (const auto& [from, routes] : by_source) {
    policies_.push_back({.from = from, .table = RouteTable(routes)});
  }
  std::ranges::sort(policies_, std::greater{}, [](const Policy& each) { return each.from.length; });
}

}  // namespace godwit::net
