#pragma once
// What IGMP (RFC 1112, 2236, 3376) and MLD (RFC 2710, 3810) say in a frame: who wants to hear which
// group, and who asks. Hostile input.
#include <cstdint>
#include <optional>
#include <vector>

#include "base/bytes.hh"
#include "net/mac_table.hh"

namespace godwit::net {

struct Membership {
  bool is_query = false;  // by a multicast router, or a switch in its place
  struct Group {
    Mac mac = 0;  // that its frames go to (RFC 1112, 6.4; RFC 2464, 7)
    bool joins = false;
    bool operator==(const Group&) const = default;
  };
  std::vector<Group> groups{};  // of a report, or a leave
};

// Of a frame with a virtio_net_hdr, tags among its headers. Nothing: it is about something else, or
// damaged.
std::optional<Membership> membership_of(BytesView frame);

// A group whose frames every port of a VLAN has to get: of the network's own protocols (RFC 4541,
// 2.1.2 and 3), or no IP group at all.
bool is_for_all(Mac group);

}  // namespace godwit::net
