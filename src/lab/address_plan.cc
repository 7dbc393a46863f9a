#include "lab/address_plan.hh"

#include <algorithm>
#include <set>

#include "base/check.hh"

namespace godwit::lab {
namespace {

constexpr std::size_t kFirstHost = 10;
// Hosts that change their address get these; kMaxHosts fit below.
constexpr std::size_t kFirstLater = 100, kLaterAddresses = 150;
constexpr std::size_t kFirstOuterPort = 20'000;

std::size_t site_index(const LabConfig& lab, std::string_view site) {
  const auto found = std::find(lab.sites.begin(), lab.sites.end(), site);
  CHECK(found != lab.sites.end(), "site {}", site);
  return static_cast<std::size_t>(found - lab.sites.begin());
}

// Sites are numbered from 1: with a 0 an IPv6 address would have a shorter canonical text.
Address in_site(std::size_t site, std::size_t node) {
  return {.ipv4 = fmt::format("10.66.{}.{}", site + 1, node),
          .ipv6 = fmt::format("fd67:6f64:7769:{:x}::{:x}", site + 1, node),
          .prefix4 = 24,
          .prefix6 = 64};
}

constexpr auto kUnreached = Nanoseconds::max();

}  // namespace

std::string router_name(std::string_view site) { return fmt::format("router-{}", site); }

Address router_address(const LabConfig& lab, std::string_view site) {
  return in_site(site_index(lab, site), 1);
}

namespace {

std::size_t host_number(const LabConfig& lab, std::string_view host) {
  std::size_t number = kFirstHost;
  const auto found = std::find_if(lab.hosts.begin(), lab.hosts.end(),
                                  [&](const Host& candidate) { return candidate.name == host; });
  CHECK(found != lab.hosts.end(), "host {}", host);
  for (auto other = lab.hosts.begin(); other != found; ++other)
    number += other->site == found->site;
  return number;
}

Address of_host(const LabConfig& lab, std::string_view host, std::size_t number) {
  const auto found = std::find_if(lab.hosts.begin(), lab.hosts.end(),
                                  [&](const Host& candidate) { return candidate.name == host; });
  CHECK(found != lab.hosts.end(), "host {}", host);
  Address address = in_site(site_index(lab, found->site), number);
  const SiteNetwork& network = lab.networks.at(found->site);
  if (!network.has_ipv4()) address.ipv4.clear();
  if (!network.has_ipv6()) address.ipv6.clear();
  return address;
}

}  // namespace

Address host_address(const LabConfig& lab, std::string_view host) {
  return of_host(lab, host, host_number(lab, host));
}

Address later_address(const LabConfig& lab, std::string_view host, std::size_t n) {
  return of_host(lab, host, kFirstLater + n % kLaterAddresses);
}

Address link_address(const LabConfig& lab, std::size_t link, std::size_t end) {
  CHECK(link < lab.links.size() && end < 2);
  return {.ipv4 = fmt::format("10.67.{}.{}", link, end + 1),
          .ipv6 = fmt::format("fd67:6f64:7769:ff{:02x}::{}", link, end + 1),
          .prefix4 = 30,
          .prefix6 = 64};
}

namespace {

std::size_t far_end(const LabConfig& lab, std::size_t link, std::string_view site) {
  return lab.links[link].sites[0] == site ? 1 : 0;
}

using Ways = std::vector<SiteRoute::Way>;

Ways ways_by(const LabConfig& lab, const std::set<std::size_t>& links, std::string_view site) {
  Ways ways;
  for (const std::size_t link : links)
    ways.push_back({.via = link_address(lab, link, far_end(lab, link, site)), .link = link});
  return ways;
}

// To the links of the hidden site `hidden` that do not end at `site` itself.
void add_link_routes(const LabConfig& lab, std::size_t hidden, const Ways& ways,
                     std::string_view site, std::vector<SiteRoute>& routes) {
  for (std::size_t i = 0; i < lab.links.size(); ++i) {
    const auto& ends = lab.links[i].sites;
    const bool is_its = ends[0] == lab.sites[hidden] || ends[1] == lab.sites[hidden];
    if (!is_its || ends[0] == site || ends[1] == site) continue;
    routes.push_back({.network4 = fmt::format("10.67.{}.0/30", i),
                      .network6 = fmt::format("fd67:6f64:7769:ff{:02x}::/64", i),
                      .ways = ways});
  }
}

struct Reached {
  Nanoseconds distance = kUnreached;
  std::set<std::size_t> first_links = {};  // of all shortest paths
  bool done = false;
};

// The links of a site lead on from it, once all shortest paths to it are known.
void go_on(const LabConfig& lab, std::size_t from, std::size_t here,
           std::vector<Reached>& reached) {
  for (std::size_t i = 0; i < lab.links.size(); ++i) {
    const Link& link = lab.links[i];
    for (std::size_t end = 0; end < 2; ++end) {
      if (link.sites[end] != lab.sites[here]) continue;
      Reached& there = reached[site_index(lab, link.sites[1 - end])];
      // One nanosecond a hop, so that links without delay prefer fewer hops.
      const Nanoseconds distance =
          reached[here].distance + link.quality[end].delay + Nanoseconds(1);
      if (distance > there.distance) continue;
      if (distance < there.distance) there.first_links.clear();
      there.distance = distance;
      if (here == from) {
        there.first_links.insert(i);
      } else {
        there.first_links.insert(reached[here].first_links.begin(),
                                 reached[here].first_links.end());
      }
    }
  }
}

std::vector<Reached> shortest_paths(const LabConfig& lab, std::size_t from) {
  std::vector<Reached> reached(lab.sites.size());
  reached[from].distance = Nanoseconds(0);
  for (;;) {
    auto nearest = reached.end();
    for (auto it = reached.begin(); it != reached.end(); ++it) {
      const bool open = !it->done && it->distance != kUnreached;
      if (open && (nearest == reached.end() || it->distance < nearest->distance)) nearest = it;
    }
    if (nearest == reached.end()) return reached;
    nearest->done = true;
    go_on(lab, from, static_cast<std::size_t>(nearest - reached.begin()), reached);
  }
}

}  // namespace

std::vector<SiteRoute> routes_of(const LabConfig& lab, std::string_view site) {
  const std::size_t from = site_index(lab, site);
  const auto reached = shortest_paths(lab, from);
  std::vector<SiteRoute> routes;
  for (std::size_t i = 0; i < reached.size(); ++i) {
    if (i == from || !reached[i].done) continue;
    const Ways ways = ways_by(lab, reached[i].first_links, site);
    if (lab.networks.at(lab.sites[i]).nat != Nat::none) {
      add_link_routes(lab, i, ways, site, routes);
      continue;
    }
    routes.push_back({.network4 = fmt::format("10.66.{}.0/24", i + 1),
                      .network6 = fmt::format("fd67:6f64:7769:{:x}::/64", i + 1),
                      .ways = ways});
  }
  return routes;
}

std::string nat_ruleset(const LabConfig& lab, std::string_view site) {
  const SiteNetwork& network = lab.networks.at(std::string(site));
  std::string rules;
  for (std::size_t i = 0; i < lab.links.size(); ++i) {
    const auto& ends = lab.links[i].sites;
    if (ends[0] != site && ends[1] != site) continue;
    const std::string outer = link_address(lab, i, ends[0] == site ? 0 : 1).ipv4;
    for (const Host& host : lab.hosts) {
      if (host.site != site || network.nat != Nat::port_restricted) continue;
      rules += fmt::format("oifname wan{} ip saddr {} udp sport {} snat to {}:{}\n", i,
                           host_address(lab, host.name).ipv4, kAgentPort, outer,
                           kFirstOuterPort + host_number(lab, host.name));
    }
  }
  return fmt::format(R"(table ip nat {{
  chain out {{
    type nat hook postrouting priority 100;
    {}oifname "wan*" masquerade{}
  }}
}}
table inet filter {{
  chain forward {{
    type filter hook forward priority 0;
    iifname "wan*" ct state != {{ established, related }} drop
  }}
  chain in {{
    type filter hook input priority 0;
    iifname "wan*" meta l4proto {{ tcp, udp }} ct state != {{ established, related }} drop
  }}
}}
)",
                     rules, network.nat == Nat::symmetric ? " random,fully-random" : "");
}

std::string hosts_file(const LabConfig& lab) {
  std::string text = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n";
  const auto add = [&](const Address& address, const std::string& name) {
    for (const auto& ip : {address.ipv4, address.ipv6}) {
      if (!ip.empty()) text += fmt::format("{} {}\n", ip, name);
    }
  };
  for (const Host& host : lab.hosts) add(host_address(lab, host.name), host.name);
  for (const auto& site : lab.sites) add(router_address(lab, site), router_name(site));
  return text;
}

}  // namespace godwit::lab
