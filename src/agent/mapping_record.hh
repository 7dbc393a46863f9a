#pragma once
// Where a guest's address leads, as it is published: keys and values of docs/protocol/mapping.md,
// and who may write them. No I/O.
//
//   PREFIX/mapping/TENANT/HOME   where the guest is, while it is not at home
//   PREFIX/epoch/TENANT/HOME     who wrote last: each write compares its revision, and changes it
//   DNS_PREFIX/.../VM            the address for new connections, for CoreDNS
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "agent/mapping_config.hh"
#include "agent/network.hh"
#include "etcd/keys.hh"

namespace godwit::agent {

// Of one of a guest's addresses, whose uplink is at this host.
struct Place {
  PortId port;       // the uplink
  std::string name;  // of that
  std::string tenant, vm;
  Ip home{};
  Epoch epoch = 1;
  bool is_away = false;
  std::optional<Ip> mobile{};  // for new connections, while it is away
  std::optional<Ip> named{};  // likewise by the vm's name, wherever it is; the same for all its own
  std::string since{};        // RFC 3339, UTC: since when this epoch is known here
  bool operator==(const Place&) const = default;
};
struct LocatedGuest {
  const PortRecord* uplink = nullptr;  // at this host; until it changes
  std::string vm{};                    // behind it; empty: it is not known
  bool is_elsewhere = false;           // the vm went on by wire
};
// Those behind uplinks here. A vm that went on by wire, and what is not wired any more, is known by
// `known` uplinks, without its name.
std::vector<LocatedGuest> located_guests(const Network& network, const std::set<PortId>& known);
std::vector<Place> places_of(const std::vector<LocatedGuest>& guests);

// What a Place says; `host` and `site` are this one's.
struct Publisher {
  const MappingConfig& config;
  std::string host, site;

  std::string mapping_key(const Place& place) const;
  std::string epoch_key(const Place& place) const;
  std::string dns_key(const Place& place) const;  // empty: it has no name
  nlohmann::json mapping(const Place& place) const;

  struct Verdict {
    std::optional<etcd::Write> write{};  // what is to be written yet; nothing: all is as it should
    std::string superseded_by{};         // the host that has published later
  };
  // `found`: what etcd has of its keys.
  Verdict publish(const Place& place, const etcd::Found& found) const;
  // All of it goes if it is this host's; else nothing. A name that others have stays.
  Verdict retract(const Place& place, const etcd::Found& found, bool keeps_name) const;
};

// A value that somebody wrote: its fields that are of the right type, of this tenant; null: it is
// no mapping.
nlohmann::json parse_mapping(const std::string& text, const std::string& tenant,
                             std::int64_t now_s);

}  // namespace godwit::agent
