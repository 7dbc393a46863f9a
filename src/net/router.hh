#pragma once
// A router of IPv4 and IPv6 (RFC 1812, RFC 4861, RFC 8200): routes by the longest prefix, with
// policy by source; neighbours by ARP and neighbour discovery; ICMP errors and echo; fragments; a
// DHCPv4 relay; router advertisements; a stateful filter and NAT (tracker.hh) where it has rules.
//
//   frame ─▶ for whom? ─▶ arrive() ─▶ route ─▶ hops, MTU ─▶ leave() ─▶ neighbour ─▶ port
//               └─▶ itself: ARP, discovery, echo, relay
//
// The gateway of a network that is stretched over sites may stand at each of them with the same
// addresses (`shared_mac`): they answer with that MAC, and send with their own, so that switches
// know where each is; who is asked for from there is asked for without saying who asks (RFC 5227).
#include <boost/unordered/unordered_flat_set.hpp>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "base/result.hh"
#include "net/arp.hh"
#include "net/component.hh"
#include "net/icmp.hh"
#include "net/neighbour_discovery.hh"
#include "net/neighbours.hh"
#include "net/route_table.hh"
#include "net/tracker.hh"

namespace godwit::net {

struct RouterPort {
  Mac mac = 0;
  std::optional<Mac> shared_mac{};
  std::vector<IpPrefix> addresses{};  // each with its network's length
  std::uint16_t mtu = 1500;           // bytes of IP
  bool is_proxy = false;              // answers for what it has a way to elsewhere (RFC 1027)
  bool advertises = false;            // itself, to IPv6 hosts
  std::vector<Ip> dns{};              // which it advertises
  std::optional<Ip> dhcp_relay{};     // the server to which requests go from here
  bool operator==(const RouterPort&) const = default;
};

struct Route {
  std::optional<IpPrefix> from{};  // only of these sources
  IpPrefix to{};
  std::optional<Ip> via{};          // neither this nor a port: it is dropped
  std::optional<PortIndex> port{};  // needed where `via` is in no port's network
  bool operator==(const Route&) const = default;
};

struct RouterConfig {
  std::map<PortIndex, RouterPort> ports{};
  std::vector<Route> routes{};
  std::optional<TrackerConfig> tracker{};
  std::size_t most_neighbours = 16'384;
  bool operator==(const RouterConfig&) const = default;
};
Result<> check(const RouterConfig& config);

class Router final : public Component {
 public:
  Router(RouterConfig config, std::uint64_t seed);

  // Neighbours and flows stay, where their ports do.
  void configure(RouterConfig config);
  void handle(PortIndex from, std::span<const MutableBytes> frames, Instant now,
              Outlet& out) override;
  Instant tick(Instant now, Outlet& out) override;
  std::vector<PortCounters> counters() const override;  // by index

  void begin_state() override;
  Bytes take_state(std::size_t most, Instant now) override;
  std::size_t untold() const override;
  void end_state() override;
  Result<> load_state(BytesView message, Instant now) override;

  const Neighbours& neighbours() const { return neighbours_; }
  const Tracker* tracker() const { return tracker_.get(); }  // null: it has no rules

 private:
  struct Port {
    bool exists = false;
    RouterPort settings{};
    std::vector<BytesView> outgoing{};  // of this call
    PortCounters counters{};
    bool is_announced = false;
    Instant advertise_at{};
  };
  // A packet in hand. `frame` is changed on its way.
  struct Work {
    PortIndex in = 0;
    MutableBytes frame{};
    IpPacket packet{};
    Ticket ticket{};
    Instant now{};
  };
  struct NextHop {
    PortIndex port = 0;
    Ip ip{};
  };

  // router.cc: what is forwarded.
  std::string_view receive(PortIndex in, MutableBytes frame, Instant now);
  std::string_view forward(Work& work);
  std::string_view leave(Work& work, PortIndex out);
  std::string_view transmit(const NextHop& hop, MutableBytes frame, const IpPacket& packet,
                            Instant now);
  std::string_view emit_to(const NextHop& hop, MutableBytes frame, Instant now);
  std::optional<NextHop> next_hop(Ip source, Ip destination) const;
  void tell(IcmpError error, std::uint16_t mtu, const Work& work);
  void emit(PortIndex port, BytesView frame);
  Bytes& made();  // a frame of the router's own, until the call returns
  bool is_own(Ip ip) const { return own_.contains(ip); }
  Ip own_at(PortIndex port, bool is_ip4) const;
  void flush(Outlet& out);

  // router_local.cc: what is for the router, and what it has to say.
  bool is_for_it(const Work& work) const;
  std::string_view take(Work& work);
  std::string_view take_arp(PortIndex in, BytesView frame, Instant now);
  std::string_view take_discovery(Work& work, const Discovery& found);
  std::string_view take_dhcp(Work& work);
  bool answers_for(PortIndex port, Ip ip) const;
  void learn(PortIndex port, Ip ip, Mac mac, bool is_new, Instant now);
  void ask(PortIndex port, Ip ip, std::optional<Mac> mac);
  void send_own(MutableBytes frame, Instant now);
  void tell_lost(BytesView frame, Instant now);
  void announce(PortIndex index);
  void advertise(PortIndex index, Ip to, Mac to_mac, std::uint16_t lifetime_s);

  // router_state.cc
  bool read_neighbour(Reader& row, Instant now);

  // router_config.cc
  void make_routes();
  std::optional<PortIndex> port_with(Ip ip) const;

  RouterConfig config_;
  std::uint64_t seed_;
  std::vector<Port> ports_;
  boost::unordered_flat_set<Ip, std::hash<Ip>> own_;
  // Values of the tables: into hops_.
  struct Hop {
    std::optional<PortIndex> port{};  // none: dropped
    std::optional<Ip> via{};          // none: the destination is a neighbour
  };
  struct Policy {
    IpPrefix from{};
    RouteTable table{};
  };
  std::vector<Hop> hops_;
  RouteTable routes_;
  std::vector<Policy> policies_;  // the longest first
  Neighbours neighbours_;
  std::unique_ptr<Tracker> tracker_;
  bool keeps_state_ = false;  // an account of it
  std::vector<PortIndex> touched_;
  std::vector<Bytes> made_;  // the first made_count_ are of this call
  std::size_t made_count_ = 0;
  // ICMP errors are few, so that nobody has the router flood somebody (RFC 1812, 4.3.2.8).
  static constexpr double kErrorsPerSecond = 1000, kErrorBurst = 50;
  double error_tokens_ = kErrorBurst;
  Instant errors_refilled_{};
};

}  // namespace godwit::net
