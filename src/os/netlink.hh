#pragma once
// Links, addresses and routes through rtnetlink(7) (libnl-route-3), by name, one call per effect.
// A Netlink speaks to the network namespace its maker's thread was in, for as long as it lives.
//
// Everything throws SetupError naming the attempt. Adding what is there already is an error for
// links and fine for addresses and routes; removing what is not there is fine.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "os/endpoint.hh"
#include "os/fd.hh"
#include "os/mac.hh"
#include "os/netns.hh"

struct nl_sock;
struct rtnl_link;

namespace godwit::os {

constexpr std::size_t kInterfaceNameLimit = 15;  // IFNAMSIZ less the final NUL

struct LinkState {
  int index = 0;
  unsigned mtu = 0;
  MacAddress mac{};
  bool up = false;
  bool carrier = false;
  int master = 0;      // index of the bridge it belongs to; 0: none
  std::string kind{};  // "veth", "bridge", "tun", ...; empty for hardware
};

struct VxlanConfig {
  std::uint32_t id = 0;
  Endpoint local{};
  Endpoint remote{};       // its port is the UDP port of both
  std::string underlay{};  // interface; may be empty
};

// One way to somewhere: by a gateway, or an interface, or both (empty: not given).
struct NextHop {
  std::string via{};
  std::string interface{};
  bool operator==(const NextHop&) const = default;
};

class Netlink final {
 public:
  Netlink();
  ~Netlink();
  Netlink(Netlink&&) noexcept;
  Netlink& operator=(Netlink&&) noexcept;

  void add_dummy(const std::string& name);  // not every kernel has these
  void add_bridge(const std::string& name);
  void add_veth(const std::string& name, const std::string& peer_name);
  void add_vxlan(const std::string& name, const VxlanConfig& config);
  void remove_link(const std::string& name);

  std::optional<LinkState> find(const std::string& name);
  LinkState link(const std::string& name);
  std::vector<std::string> names();
  // Frames the interface could not send (for a TAP: that its reader was too late for); 0 when it is
  // gone.
  std::uint64_t dropped(const std::string& name);

  void set_up(const std::string& name);
  void set_down(const std::string& name);
  void set_mtu(const std::string& name, unsigned mtu);
  void set_queue_length(const std::string& name, unsigned frames);
  void set_mac(const std::string& name, const MacAddress& mac);
  void set_master(const std::string& name, const std::string& bridge);
  void clear_master(const std::string& name);
  void rename(const std::string& name, const std::string& new_name);
  void move_to(const std::string& name, const Fd& netns);
  // No frames of the kernel's own: no IPv6 addresses, no router solicitations, no MLD reports.
  void silence_ipv6(const std::string& name);

  // "10.0.0.1/24", "fd00::1/64" (without duplicate address detection: usable at once).
  void add_address(const std::string& name, const std::string& address);
  void remove_address(const std::string& name, const std::string& address);
  // "10.1.0.0/16", "default", "::/0"; by a gateway, or an interface, or both (empty: not given).
  // `owner`: by whom, for who reads it back (rtnetlink(7), rtm_protocol); its own only are removed.
  // The least metric is the best; 0: the kernel's own.
  static constexpr std::uint8_t kStaticRoute = 4;  // RTPROT_STATIC
  void add_route(const std::string& to, const std::string& via, const std::string& interface = {},
                 std::uint8_t owner = kStaticRoute, std::uint32_t metric = 0);
  // By several ways of one family, each flow by one of them (ECMP). `source` is the address that
  // this machine's own packets have then; empty: one of the interface's.
  void add_route_by(const std::vector<NextHop>& ways, const std::string& to,
                    const std::string& source = {}, std::uint8_t owner = kStaticRoute,
                    std::uint32_t metric = 0);
  void remove_route(const std::string& to, std::uint8_t owner = kStaticRoute);
  // The static route that is there, if any, leads by this interface from now on.
  void replace_route(const std::string& to, const std::string& interface);
  // The interface's neighbours are answered for an address that is elsewhere (ARP proxy; RFC 4389).
  void add_proxy_neighbour(const std::string& name, const std::string& address);
  void remove_proxy_neighbour(const std::string& name, const std::string& address);
  // Is there without having been asked for, until the interface is gone.
  void add_neighbour(const std::string& name, const std::string& address, const MacAddress& mac);
  // Is used at once and then verified (RFC 4861, 7.3.2: STALE); what waits for it goes to it.
  void suggest_neighbour(const std::string& name, const std::string& address,
                         const MacAddress& mac);
  // What the interface has heard of this one.
  std::optional<MacAddress> neighbour(const std::string& name, const std::string& address);
  // What comes from an address and has the mark's bits is routed by a table of its own, which has
  // one way; in place of what the table had.
  struct MarkedWay {
    std::string source{};    // "10.1.1.20/32"
    std::uint32_t mark = 0;  // and the mask
    std::uint32_t table = 0;
    NextHop way{};
  };
  void add_marked_way(const MarkedWay& way);
  void remove_marked_way(const MarkedWay& way);
  // What comes by one interface for an address goes on by another, likewise.
  struct ArrivingWay {
    std::string by{};  // interface; of one that is gone the rule stays
    std::string to{};  // "10.1.1.20/32"
    std::uint32_t table = 0;
    std::string interface{};
  };
  void add_arriving_way(const ArrivingWay& way);
  void remove_arriving_way(const ArrivingWay& way);

 private:
  struct Closer {
    void operator()(nl_sock* socket) const;
    void operator()(rtnl_link* link) const;
  };
  using LinkPtr = std::unique_ptr<rtnl_link, Closer>;

  LinkPtr lookup(const std::string& name);
  int index_of(const std::string& name, std::string_view attempt);
  void set_neighbour(const std::string& name, const std::string& address, const MacAddress& mac,
                     int state);
  void add(LinkPtr link, std::string_view attempt);
  template <class Change>
  void change(const std::string& name, std::string_view attempt, Change&& change);

  std::unique_ptr<nl_sock, Closer> socket_;
  NetNamespace here_;
};

}  // namespace godwit::os
