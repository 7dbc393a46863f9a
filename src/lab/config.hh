#pragma once
// What a lab is made of: sites, the hosts of each, and the links between sites. Read from YAML:
//
//   sites:
//     east: { hosts: [e1, client] }
//     west:
//       hosts: [w1]
//       nat: port-restricted   # or symmetric: behind a router that translates, as at home
//       nat-timeout: 30s       # after which it forgets a silent UDP flow
//       ip: ipv4               # or ipv6, both: which addresses the hosts have and their agents
//                              # announce; without it they have both and announce IPv4
//     core:
//       hosts: []              # only a router
//       router: agent          # which runs Godwit's agent as the hosts do: host router-core
//   links:
//     east-west:
//       between: [east, west]
//       rate: 400mbit          # each way; without it the link is never the bottleneck
//       delay: 20ms            # one way: the round trip is twice this
//       jitter: 1ms            # uniform, +- this; keeps the order unless `reorder: true`
//       loss: 0.1%
//       queue: 40ms            # before the link, drop-tail: a time at its rate, or a size (1MiB)
//       mtu: 1500              # bytes of an IP packet
//       too-big: icmp          # or silent: a black hole
//       toward: { west: { rate: 100mbit } }     # what differs in one direction
//       cuts: [ { at: 30s, for: 5s } ]          # counted from the start of the lab
//
// Between sites that several equally short ways join (by delay, then hops), packets take all of
// them, each flow one (ECMP, by addresses and ports).
//
// Nothing here touches the system.
#include <array>
#include <map>
#include <string>
#include <vector>

#include "base/result.hh"
#include "lab/link_quality.hh"

namespace godwit::lab {

struct Host {
  std::string name;
  std::string site;
  bool operator==(const Host&) const = default;
};

// What a site's router does with packets of its hosts. A new mapping for each peer (RFC 4787, 4.1:
// address and port dependent), or one per host for the agent's UDP port; what comes in unasked is
// dropped in both (filtering by address and port).
enum class Nat { none, port_restricted, symmetric };
enum class IpFamilies { ipv4_announced, ipv4, ipv6, both };

struct SiteNetwork {
  Nat nat = Nat::none;
  Nanoseconds nat_timeout = seconds(30);  // what Linux and AWS take for unanswered flows
  IpFamilies ip = IpFamilies::ipv4_announced;
  bool router_has_agent = false;
  bool has_ipv4() const { return ip != IpFamilies::ipv6; }
  bool has_ipv6() const { return ip != IpFamilies::ipv4; }
  bool operator==(const SiteNetwork&) const = default;
};

struct ScriptedCut {
  Nanoseconds at;
  Nanoseconds duration;
  bool operator==(const ScriptedCut&) const = default;
};

struct Link {
  std::string name;
  std::array<std::string, 2> sites;
  std::array<LinkQuality, 2> quality;  // [0]: from sites[0] to sites[1]
  std::vector<ScriptedCut> cuts;
  bool operator==(const Link&) const = default;
};

struct LabConfig {
  std::vector<std::string> sites;  // in the order of the file, as everything here
  std::vector<Host> hosts;
  std::vector<Link> links;
  std::map<std::string, SiteNetwork> networks;  // by site, each has one
  std::uint64_t seed = 1;                       // of losses, jitter, and flows' ways
  bool operator==(const LabConfig&) const = default;
};

// Limits of the address plan (lab/address_plan.hh) and of one machine's patience.
constexpr std::size_t kMaxSites = 32;
constexpr std::size_t kMaxHosts = 64;
constexpr std::size_t kMaxLinks = 64;
constexpr std::size_t kMaxConfigBytes = 256 * 1024;
// The agents' port on every host (agent/config.hh), which a port-restricted NAT keeps mapped.
constexpr std::uint16_t kAgentPort = 4747;

// Two sites, 40 ms apart: what `lab up` makes when no file is given.
extern const std::string_view kDefaultLab;

// Errors read "lab.yaml:7:11: what is wrong: what to write instead".
Result<LabConfig> parse_lab(std::string_view yaml, std::string_view source);

// One setting of a link by its key in the file ("rate", "200mbit"), as `lab set` and the emulator's
// control socket take it too.
Result<> set_link_quality(LinkQuality& quality, std::string_view key, const std::string& value);

}  // namespace godwit::lab
