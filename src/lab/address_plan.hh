#pragma once
// The addresses of a lab. Site i (from 1) has 10.66.i.0/24 and fd67:6f64:7769:i::/64, its router at
// .1, its hosts from .10 on; link k (from 0) has 10.67.k.0/30 and fd67:6f64:7769:ff<k>::/64 with
// the router of its first site at 1 and the other at 2. All numbers are private (RFC 1918, RFC
// 4193) and exist in the lab's own network namespaces only.
#include <cstdint>
#include <string>
#include <vector>

#include "lab/config.hh"

namespace godwit::lab {

// An address of one node, and how wide its network is. One of the two may be missing.
struct Address {
  std::string ipv4;  // "10.66.0.10"
  std::string ipv6;
  unsigned prefix4 = 24;
  unsigned prefix6 = 64;
  bool operator==(const Address&) const = default;
};

// In the site's network. A router has both families, and announces those of its site.
Address router_address(const LabConfig& lab, std::string_view site);
Address host_address(const LabConfig& lab, std::string_view host);
// Another one in the same site, which no host had at first: the nth a host changes to, n from 0.
Address later_address(const LabConfig& lab, std::string_view host, std::size_t n);
// Of the router at sites[end] of the link; end is 0 or 1.
Address link_address(const LabConfig& lab, std::size_t link, std::size_t end);
std::string router_name(std::string_view site);  // "router-east"

// What the router of `site` must know to reach another site: its network, or, where a NAT hides
// that, the networks of its links. By several ways if they are equally short (ECMP).
struct SiteRoute {
  struct Way {
    Address via;
    std::size_t link;
    bool operator==(const Way&) const = default;
  };
  std::string network4;  // "10.66.1.0/24"
  std::string network6;
  std::vector<Way> ways;
  bool operator==(const SiteRoute&) const = default;
};
// Shortest paths by delay, then hops (Dijkstra); sites that cannot be reached have no route.
// Static: a cut link is a loss, as where routing takes minutes to notice.
std::vector<SiteRoute> routes_of(const LabConfig& lab, std::string_view site);

// What a NAT's router does, as an nftables ruleset; for the agents' port of the site's hosts one
// outer port each if it is port-restricted.
std::string nat_ruleset(const LabConfig& lab, std::string_view site);

// /etc/hosts for every host: names to IPv4 and IPv6 addresses.
std::string hosts_file(const LabConfig& lab);

}  // namespace godwit::lab
