#include "os/netlink.hh"

#include <linux/fib_rules.h>
#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <netlink/netlink.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <netlink/route/link/inet6.h>
#include <netlink/route/link/veth.h>
#include <netlink/route/link/vxlan.h>
#include <netlink/route/neighbour.h>
#include <netlink/route/route.h>
#include <netlink/route/rule.h>

#include <cstring>
#include <fstream>

#include "base/check.hh"
#include "base/result.hh"

namespace godwit::os {
namespace {

void check(int error, std::string_view attempt) {
  if (error < 0) fail_setup("{}: {}", attempt, ::nl_geterror(error));
}

struct AddressCloser {
  void operator()(nl_addr* address) const { ::nl_addr_put(address); }
  void operator()(rtnl_addr* address) const { ::rtnl_addr_put(address); }
  void operator()(rtnl_route* route) const { ::rtnl_route_put(route); }
  void operator()(rtnl_neigh* neighbour) const { ::rtnl_neigh_put(neighbour); }
  void operator()(rtnl_rule* rule) const { ::rtnl_rule_put(rule); }
};
using AddressPtr = std::unique_ptr<nl_addr, AddressCloser>;
using InterfaceAddressPtr = std::unique_ptr<rtnl_addr, AddressCloser>;
using RoutePtr = std::unique_ptr<rtnl_route, AddressCloser>;
using NeighbourPtr = std::unique_ptr<rtnl_neigh, AddressCloser>;
using RulePtr = std::unique_ptr<rtnl_rule, AddressCloser>;

AddressPtr parse_address(const std::string& text, std::string_view attempt, int hint = AF_UNSPEC) {
  nl_addr* address = nullptr;
  check(::nl_addr_parse(text.c_str(), hint, &address), attempt);
  return AddressPtr(address);
}

// "default" alone says no family: it is the gateway's, or else IPv4.
AddressPtr parse_target(const std::string& to, std::string_view attempt, int gateway_family) {
  const bool guess = to == "default" && gateway_family == AF_UNSPEC;
  return parse_address(to, attempt, guess ? AF_INET : gateway_family);
}

NeighbourPtr proxy_neighbour(int interface, const std::string& address, std::string_view attempt) {
  const AddressPtr target = parse_address(address, attempt);
  NeighbourPtr neighbour(::rtnl_neigh_alloc());
  ::rtnl_neigh_set_ifindex(neighbour.get(), interface);
  check(::rtnl_neigh_set_dst(neighbour.get(), target.get()), attempt);
  ::rtnl_neigh_set_flags(neighbour.get(), NTF_PROXY);
  return neighbour;
}

// Before the main table (32766).
constexpr std::uint32_t kMarkedWays = 26472;

RulePtr marked_rule(const Netlink::MarkedWay& way, std::string_view attempt) {
  const AddressPtr source = parse_address(way.source, attempt);
  RulePtr rule(::rtnl_rule_alloc());
  ::rtnl_rule_set_family(rule.get(), ::nl_addr_get_family(source.get()));
  check(::rtnl_rule_set_src(rule.get(), source.get()), attempt);
  ::rtnl_rule_set_mark(rule.get(), way.mark);
  ::rtnl_rule_set_mask(rule.get(), way.mark);
  ::rtnl_rule_set_prio(rule.get(), kMarkedWays);
  return rule;
}

RulePtr arriving_rule(const Netlink::ArrivingWay& way, std::string_view attempt) {
  const AddressPtr target = parse_address(way.to, attempt);
  RulePtr rule(::rtnl_rule_alloc());
  ::rtnl_rule_set_family(rule.get(), ::nl_addr_get_family(target.get()));
  check(::rtnl_rule_set_iif(rule.get(), way.by.c_str()), attempt);
  check(::rtnl_rule_set_dst(rule.get(), target.get()), attempt);
  ::rtnl_rule_set_prio(rule.get(), kMarkedWays);
  return rule;
}

AddressPtr to_address(const Endpoint& endpoint) {
  return parse_address(endpoint.address_text(), "use an address");
}

void add_rule(nl_sock* socket, const RulePtr& rule, std::uint32_t table, std::string_view attempt) {
  ::rtnl_rule_set_table(rule.get(), table);
  ::rtnl_rule_set_action(rule.get(), FR_ACT_TO_TBL);
  const int error = ::rtnl_rule_add(socket, rule.get(), NLM_F_EXCL);
  if (error != -NLE_EXIST) check(error, attempt);
}

void check_name(const std::string& name) {
  if (name.empty() || name.size() > kInterfaceNameLimit) {
    fail_setup("interface name '{}': 1 to {} characters are allowed", name, kInterfaceNameLimit);
  }
}

}  // namespace

void Netlink::Closer::operator()(nl_sock* socket) const { ::nl_socket_free(socket); }
void Netlink::Closer::operator()(rtnl_link* link) const { ::rtnl_link_put(link); }

Netlink::Netlink() : socket_(::nl_socket_alloc()), here_(NetNamespace::current()) {
  CHECK(socket_ != nullptr);
  check(::nl_connect(socket_.get(), NETLINK_ROUTE), "open a netlink socket");
}
Netlink::~Netlink() = default;
Netlink::Netlink(Netlink&&) noexcept = default;
Netlink& Netlink::operator=(Netlink&&) noexcept = default;

Netlink::LinkPtr Netlink::lookup(const std::string& name) {
  check_name(name);
  rtnl_link* found = nullptr;
  const int error = ::rtnl_link_get_kernel(socket_.get(), 0, name.c_str(), &found);
  if (error == -NLE_OBJ_NOTFOUND || error == -NLE_NODEV) return nullptr;
  check(error, fmt::format("look up interface {}", name));
  return LinkPtr(found);
}

int Netlink::index_of(const std::string& name, std::string_view attempt) {
  const LinkPtr link = lookup(name);
  if (link == nullptr) fail_setup("{}: there is no interface {}", attempt, name);
  return ::rtnl_link_get_ifindex(link.get());
}

void Netlink::add(LinkPtr link, std::string_view attempt) {
  check(::rtnl_link_add(socket_.get(), link.get(), NLM_F_CREATE | NLM_F_EXCL), attempt);
}

template <class Change>
void Netlink::change(const std::string& name, std::string_view attempt, Change&& change) {
  const auto text = fmt::format("{} of interface {}", attempt, name);
  const LinkPtr old = lookup(name);
  if (old == nullptr) fail_setup("{}: there is no such interface", text);
  const LinkPtr wanted(::rtnl_link_alloc());
  change(wanted.get());
  check(::rtnl_link_change(socket_.get(), old.get(), wanted.get(), 0), text);
}

void Netlink::add_dummy(const std::string& name) {
  check_name(name);
  LinkPtr link(::rtnl_link_alloc());
  check(::rtnl_link_set_type(link.get(), "dummy"), "make a dummy interface");
  ::rtnl_link_set_name(link.get(), name.c_str());
  add(std::move(link), fmt::format("add dummy interface {}", name));
}

void Netlink::add_bridge(const std::string& name) {
  check_name(name);
  LinkPtr link(::rtnl_link_alloc());
  check(::rtnl_link_set_type(link.get(), "bridge"), "make a bridge");
  ::rtnl_link_set_name(link.get(), name.c_str());
  add(std::move(link), fmt::format("add bridge {}", name));
}

void Netlink::add_veth(const std::string& name, const std::string& peer_name) {
  check_name(name);
  check_name(peer_name);
  LinkPtr link(::rtnl_link_veth_alloc());
  CHECK(link != nullptr);
  ::rtnl_link_set_name(link.get(), name.c_str());
  rtnl_link* peer = ::rtnl_link_veth_get_peer(link.get());  // a reference of its own
  ::rtnl_link_set_name(peer, peer_name.c_str());
  ::rtnl_link_put(peer);
  add(std::move(link), fmt::format("add veth pair {} and {}", name, peer_name));
}

void Netlink::add_vxlan(const std::string& name, const VxlanConfig& config) {
  check_name(name);
  LinkPtr link(::rtnl_link_vxlan_alloc());
  CHECK(link != nullptr);
  ::rtnl_link_set_name(link.get(), name.c_str());
  const auto attempt = fmt::format("add vxlan interface {}", name);
  check(::rtnl_link_vxlan_set_id(link.get(), config.id), attempt);
  check(::rtnl_link_vxlan_set_port(link.get(), config.remote.port), attempt);
  check(::rtnl_link_vxlan_set_local(link.get(), to_address(config.local).get()), attempt);
  check(::rtnl_link_vxlan_set_group(link.get(), to_address(config.remote).get()), attempt);
  if (!config.underlay.empty()) {
    const int underlay = index_of(config.underlay, attempt);
    check(::rtnl_link_vxlan_set_link(link.get(), static_cast<std::uint32_t>(underlay)), attempt);
  }
  add(std::move(link), attempt);
}

void Netlink::remove_link(const std::string& name) {
  const LinkPtr link = lookup(name);
  if (link == nullptr) return;
  const int error = ::rtnl_link_delete(socket_.get(), link.get());
  if (error != -NLE_NODEV) check(error, fmt::format("remove interface {}", name));
}

std::optional<LinkState> Netlink::find(const std::string& name) {
  const LinkPtr link = lookup(name);
  if (link == nullptr) return std::nullopt;
  LinkState state{.index = ::rtnl_link_get_ifindex(link.get()),
                  .mtu = ::rtnl_link_get_mtu(link.get()),
                  .mac = {},
                  .up = (::rtnl_link_get_flags(link.get()) & IFF_UP) != 0,
                  .carrier = ::rtnl_link_get_carrier(link.get()) != 0,
                  .master = ::rtnl_link_get_master(link.get()),
                  .kind = {}};
  if (const char* kind = ::rtnl_link_get_type(link.get())) state.kind = kind;
  nl_addr* mac = ::rtnl_link_get_addr(link.get());
  if (mac != nullptr && ::nl_addr_get_len(mac) == state.mac.octets.size()) {
    std::memcpy(state.mac.octets.data(), ::nl_addr_get_binary_addr(mac), state.mac.octets.size());
  }
  return state;
}

LinkState Netlink::link(const std::string& name) {
  const auto state = find(name);
  if (!state) fail_setup("there is no interface {}", name);
  return *state;
}

std::vector<std::string> Netlink::names() {
  nl_cache* cache = nullptr;
  check(::rtnl_link_alloc_cache(socket_.get(), AF_UNSPEC, &cache), "list the interfaces");
  std::vector<std::string> names;
  for (nl_object* at = ::nl_cache_get_first(cache); at != nullptr; at = ::nl_cache_get_next(at)) {
    names.emplace_back(::rtnl_link_get_name(reinterpret_cast<rtnl_link*>(at)));
  }
  ::nl_cache_free(cache);
  return names;
}

std::uint64_t Netlink::dropped(const std::string& name) {
  const LinkPtr link = lookup(name);
  return link == nullptr ? 0 : ::rtnl_link_get_stat(link.get(), RTNL_LINK_TX_DROPPED);
}

void Netlink::set_up(const std::string& name) {
  change(name, "set up", [](rtnl_link* link) { ::rtnl_link_set_flags(link, IFF_UP); });
}

void Netlink::set_down(const std::string& name) {
  change(name, "set down", [](rtnl_link* link) { ::rtnl_link_unset_flags(link, IFF_UP); });
}

void Netlink::set_mtu(const std::string& name, unsigned mtu) {
  change(name, fmt::format("set the mtu {}", mtu),
         [&](rtnl_link* link) { ::rtnl_link_set_mtu(link, mtu); });
}

void Netlink::set_queue_length(const std::string& name, unsigned frames) {
  change(name, "set the queue length",
         [&](rtnl_link* link) { ::rtnl_link_set_txqlen(link, frames); });
}

void Netlink::set_mac(const std::string& name, const MacAddress& mac) {
  const AddressPtr address(::nl_addr_build(AF_LLC, mac.octets.data(), mac.octets.size()));
  change(name, fmt::format("set the address {}", mac.text()),
         [&](rtnl_link* link) { ::rtnl_link_set_addr(link, address.get()); });
}

void Netlink::set_master(const std::string& name, const std::string& bridge) {
  const int index = index_of(bridge, fmt::format("attach {} to a bridge", name));
  change(name, fmt::format("set the bridge {}", bridge),
         [&](rtnl_link* link) { ::rtnl_link_set_master(link, index); });
}

void Netlink::clear_master(const std::string& name) {
  change(name, "clear the bridge", [](rtnl_link* link) { ::rtnl_link_set_master(link, 0); });
}

void Netlink::rename(const std::string& name, const std::string& new_name) {
  check_name(new_name);
  change(name, fmt::format("set the name {}", new_name),
         [&](rtnl_link* link) { ::rtnl_link_set_name(link, new_name.c_str()); });
}

void Netlink::move_to(const std::string& name, const Fd& netns) {
  change(name, "change the namespace",
         [&](rtnl_link* link) { ::rtnl_link_set_ns_fd(link, netns.number()); });
}

void Netlink::silence_ipv6(const std::string& name) {
  // No link-local address and thus no router solicitations; then, where /proc/sys can be written,
  // no IPv6 at all, which also stops multicast listener reports.
  change(name, "stop IPv6 autoconfiguration", [](rtnl_link* link) {
    ::rtnl_link_inet6_set_addr_gen_mode(link, IN6_ADDR_GEN_MODE_NONE);
  });
  here_.run([&] {  // /proc/sys/net is the reading thread's namespace
    std::ofstream(fmt::format("/proc/sys/net/ipv6/conf/{}/disable_ipv6", name)) << "1";
  });
}

void Netlink::add_address(const std::string& name, const std::string& address) {
  const auto attempt = fmt::format("add address {} to interface {}", address, name);
  const AddressPtr local = parse_address(address, attempt);
  const InterfaceAddressPtr entry(::rtnl_addr_alloc());
  ::rtnl_addr_set_ifindex(entry.get(), index_of(name, attempt));
  check(::rtnl_addr_set_local(entry.get(), local.get()), attempt);
  if (::nl_addr_get_family(local.get()) == AF_INET6) {
    ::rtnl_addr_set_flags(entry.get(), IFA_F_NODAD);
  }
  const int error = ::rtnl_addr_add(socket_.get(), entry.get(), NLM_F_EXCL);
  if (error != -NLE_EXIST) check(error, attempt);
}

void Netlink::remove_address(const std::string& name, const std::string& address) {
  const auto attempt = fmt::format("remove address {} from interface {}", address, name);
  const AddressPtr local = parse_address(address, attempt);
  const InterfaceAddressPtr entry(::rtnl_addr_alloc());
  ::rtnl_addr_set_ifindex(entry.get(), index_of(name, attempt));
  check(::rtnl_addr_set_local(entry.get(), local.get()), attempt);
  const int error = ::rtnl_addr_delete(socket_.get(), entry.get(), 0);
  if (error != -NLE_NOADDR && error != -NLE_OBJ_NOTFOUND) check(error, attempt);
}

void Netlink::add_route(const std::string& to, const std::string& via, const std::string& interface,
                        std::uint8_t owner, std::uint32_t metric) {
  add_route_by({{.via = via, .interface = interface}}, to, {}, owner, metric);
}

void Netlink::add_route_by(const std::vector<NextHop>& ways, const std::string& to,
                           const std::string& source, std::uint8_t owner, std::uint32_t metric) {
  CHECK(!ways.empty());
  std::string ways_text;
  for (const NextHop& way : ways) ways_text += fmt::format(" '{}' '{}'", way.via, way.interface);
  const auto attempt = fmt::format("add a route to {} by{}", to, ways_text);
  const RoutePtr route(::rtnl_route_alloc());
  ::rtnl_route_set_table(route.get(), RT_TABLE_MAIN);
  ::rtnl_route_set_protocol(route.get(), owner);
  if (metric != 0) ::rtnl_route_set_priority(route.get(), metric);
  int family = AF_UNSPEC;
  for (const NextHop& way : ways) {
    rtnl_nexthop* hop = ::rtnl_route_nh_alloc();
    ::rtnl_route_add_nexthop(route.get(), hop);  // the route owns it now
    if (!way.via.empty()) {
      const AddressPtr gateway = parse_address(way.via, attempt);
      family = ::nl_addr_get_family(gateway.get());
      ::rtnl_route_nh_set_gateway(hop, gateway.get());
    }
    if (!way.interface.empty()) ::rtnl_route_nh_set_ifindex(hop, index_of(way.interface, attempt));
  }
  check(::rtnl_route_set_dst(route.get(), parse_target(to, attempt, family).get()), attempt);
  ::rtnl_route_set_scope(route.get(), family == AF_UNSPEC ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE);
  if (!source.empty())
    check(::rtnl_route_set_pref_src(route.get(), parse_address(source, attempt).get()), attempt);
  const int error = ::rtnl_route_add(socket_.get(), route.get(), NLM_F_EXCL);
  if (error != -NLE_EXIST) check(error, attempt);
}

void Netlink::replace_route(const std::string& to, const std::string& interface) {
  const auto attempt = fmt::format("route {} by {}", to, interface);
  const RoutePtr route(::rtnl_route_alloc());
  ::rtnl_route_set_table(route.get(), RT_TABLE_MAIN);
  ::rtnl_route_set_protocol(route.get(), kStaticRoute);
  ::rtnl_route_set_scope(route.get(), RT_SCOPE_LINK);
  rtnl_nexthop* hop = ::rtnl_route_nh_alloc();
  ::rtnl_route_add_nexthop(route.get(), hop);
  ::rtnl_route_nh_set_ifindex(hop, index_of(interface, attempt));
  check(::rtnl_route_set_dst(route.get(), parse_address(to, attempt).get()), attempt);
  check(::rtnl_route_add(socket_.get(), route.get(), NLM_F_CREATE | NLM_F_REPLACE), attempt);
}

void Netlink::remove_route(const std::string& to, std::uint8_t owner) {
  const auto attempt = fmt::format("remove the route to {}", to);
  const AddressPtr target = parse_target(to, attempt, AF_UNSPEC);
  const RoutePtr route(::rtnl_route_alloc());
  check(::rtnl_route_set_dst(route.get(), target.get()), attempt);
  ::rtnl_route_set_table(route.get(), RT_TABLE_MAIN);
  ::rtnl_route_set_protocol(route.get(), owner);
  ::rtnl_route_set_scope(route.get(), RT_SCOPE_NOWHERE);  // any
  const int error = ::rtnl_route_delete(socket_.get(), route.get(), 0);
  if (error != -NLE_OBJ_NOTFOUND) check(error, attempt);
}

void Netlink::add_proxy_neighbour(const std::string& name, const std::string& address) {
  const auto attempt = fmt::format("answer for {} at {}", address, name);
  const auto neighbour = proxy_neighbour(index_of(name, attempt), address, attempt);
  check(::rtnl_neigh_add(socket_.get(), neighbour.get(), NLM_F_CREATE | NLM_F_REPLACE), attempt);
}

void Netlink::remove_proxy_neighbour(const std::string& name, const std::string& address) {
  const auto attempt = fmt::format("answer no more for {} at {}", address, name);
  const auto neighbour = proxy_neighbour(index_of(name, attempt), address, attempt);
  const int error = ::rtnl_neigh_delete(socket_.get(), neighbour.get(), 0);
  if (error != -NLE_OBJ_NOTFOUND) check(error, attempt);
}

void Netlink::set_neighbour(const std::string& name, const std::string& address,
                            const MacAddress& mac, int state) {
  const auto attempt = fmt::format("know {} as {} at {}", address, mac.text(), name);
  const AddressPtr target = parse_address(address, attempt);
  const AddressPtr link(::nl_addr_build(AF_LLC, mac.octets.data(), mac.octets.size()));
  const NeighbourPtr neighbour(::rtnl_neigh_alloc());
  ::rtnl_neigh_set_ifindex(neighbour.get(), index_of(name, attempt));
  check(::rtnl_neigh_set_dst(neighbour.get(), target.get()), attempt);
  ::rtnl_neigh_set_lladdr(neighbour.get(), link.get());
  ::rtnl_neigh_set_state(neighbour.get(), state);
  check(::rtnl_neigh_add(socket_.get(), neighbour.get(), NLM_F_CREATE | NLM_F_REPLACE), attempt);
}

void Netlink::add_neighbour(const std::string& name, const std::string& address,
                            const MacAddress& mac) {
  set_neighbour(name, address, mac, NUD_PERMANENT);
}

void Netlink::suggest_neighbour(const std::string& name, const std::string& address,
                                const MacAddress& mac) {
  set_neighbour(name, address, mac, NUD_STALE);
}

std::optional<MacAddress> Netlink::neighbour(const std::string& name, const std::string& address) {
  const auto attempt = fmt::format("ask for {} at {}", address, name);
  const AddressPtr target = parse_address(address, attempt);
  nl_cache* all = nullptr;
  check(::rtnl_neigh_alloc_cache(socket_.get(), &all), attempt);
  const std::unique_ptr<nl_cache, void (*)(nl_cache*)> cache(all, ::nl_cache_free);
  const NeighbourPtr found(::rtnl_neigh_get(all, index_of(name, attempt), target.get()));
  nl_addr* const link = found ? ::rtnl_neigh_get_lladdr(found.get()) : nullptr;
  MacAddress mac;
  if (link == nullptr || ::nl_addr_get_len(link) != mac.octets.size()) return std::nullopt;
  std::memcpy(mac.octets.data(), ::nl_addr_get_binary_addr(link), mac.octets.size());
  return mac;
}

void Netlink::add_marked_way(const MarkedWay& way) {
  const auto attempt = fmt::format("route what {} marks by {}", way.source, way.way.interface);
  const AddressPtr gateway = parse_address(way.way.via, attempt);
  const int family = ::nl_addr_get_family(gateway.get());
  const RoutePtr route(::rtnl_route_alloc());
  ::rtnl_route_set_table(route.get(), way.table);
  ::rtnl_route_set_protocol(route.get(), kStaticRoute);
  rtnl_nexthop* hop = ::rtnl_route_nh_alloc();
  ::rtnl_route_add_nexthop(route.get(), hop);
  ::rtnl_route_nh_set_gateway(hop, gateway.get());
  ::rtnl_route_nh_set_flags(hop, RTNH_F_ONLINK);
  ::rtnl_route_nh_set_ifindex(hop, index_of(way.way.interface, attempt));
  const char* everything = family == AF_INET ? "0.0.0.0/0" : "::/0";
  check(::rtnl_route_set_dst(route.get(), parse_address(everything, attempt).get()), attempt);
  check(::rtnl_route_add(socket_.get(), route.get(), NLM_F_CREATE | NLM_F_REPLACE), attempt);
  add_rule(socket_.get(), marked_rule(way, attempt), way.table, attempt);
}

// Whatever its table, of which it has another for each life of the interface, with which the route
// goes.
void Netlink::remove_marked_way(const MarkedWay& way) {
  const auto attempt = fmt::format("route what {} marks as all else", way.source);
  int error = 0;
  while (error == 0) {
    error = ::rtnl_rule_delete(socket_.get(), marked_rule(way, attempt).get(), 0);
  }
  if (error != -NLE_OBJ_NOTFOUND) check(error, attempt);
}

void Netlink::add_arriving_way(const ArrivingWay& way) {
  const auto attempt = fmt::format("route what comes by {} for {}", way.by, way.to);
  const RoutePtr route(::rtnl_route_alloc());
  ::rtnl_route_set_table(route.get(), way.table);
  ::rtnl_route_set_protocol(route.get(), kStaticRoute);
  ::rtnl_route_set_scope(route.get(), RT_SCOPE_LINK);
  rtnl_nexthop* hop = ::rtnl_route_nh_alloc();
  ::rtnl_route_add_nexthop(route.get(), hop);
  ::rtnl_route_nh_set_ifindex(hop, index_of(way.interface, attempt));
  check(::rtnl_route_set_dst(route.get(), parse_address(way.to, attempt).get()), attempt);
  check(::rtnl_route_add(socket_.get(), route.get(), NLM_F_CREATE | NLM_F_REPLACE), attempt);
  add_rule(socket_.get(), arriving_rule(way, attempt), way.table, attempt);
}

void Netlink::remove_arriving_way(const ArrivingWay& way) {
  const auto attempt = fmt::format("route what comes by {} for {} as all else", way.by, way.to);
  const int error = ::rtnl_rule_delete(socket_.get(), arriving_rule(way, attempt).get(), 0);
  if (error != -NLE_OBJ_NOTFOUND) check(error, attempt);
}

}  // namespace godwit::os
