#pragma once
// What a lab is made of: sites, the hosts of each, and the links between sites. Read from YAML:
//
//   sites:
//     east: { hosts: [e1, client] }
//     west: { hosts: [w1] }
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
// Nothing here touches the system.
#include <array>
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
  std::uint64_t seed = 1;  // of losses and jitter
  bool operator==(const LabConfig&) const = default;
};

// Limits of the address plan (lab/address_plan.hh) and of one machine's patience.
constexpr std::size_t kMaxSites = 32;
constexpr std::size_t kMaxHosts = 64;
constexpr std::size_t kMaxLinks = 64;
constexpr std::size_t kMaxConfigBytes = 256 * 1024;

// Two sites, 40 ms apart: what `lab up` makes when no file is given.
extern const std::string_view kDefaultLab;

// Errors read "lab.yaml:7:11: what is wrong: what to write instead".
Result<LabConfig> parse_lab(std::string_view yaml, std::string_view source);

// One setting of a link by its key in the file ("rate", "200mbit"), as `lab set` and the emulator's
// control socket take it too.
Result<> set_link_quality(LinkQuality& quality, std::string_view key, const std::string& value);

}  // namespace godwit::lab
