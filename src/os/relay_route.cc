#include "os/relay_route.hh"

#include <algorithm>

#include "os/forwarding.hh"
#include "os/guest_route.hh"
#include "os/kernel_setting.hh"
#include "os/moved_connections.hh"
#include "os/netlink.hh"

namespace godwit::os {
namespace {

// The other end, for who needs a next hop. Link-local: they mean something on the relay only.
constexpr const char* kOtherEnd4 = "169.254.103.1";
constexpr const char* kOtherEnd6 = "fe80::67:1";
// Of routing tables, of which each relay has its own.
constexpr std::uint32_t kFirstTable = 0x67000000;
constexpr std::uint32_t kFirstArrivingTable = 0x68000000;

std::string alone(const Ip& address) {
  return IpPrefix{address, static_cast<std::uint8_t>(address.is4() ? 32 : 128)}.text();
}

Netlink::MarkedWay marked_way(Netlink& netlink, const std::string& interface, const Ip& guest) {
  const auto link = netlink.find(interface);
  return {.source = alone(guest),
          .mark = kRelayMark,
          .table = kFirstTable + static_cast<std::uint32_t>(link ? link->index : 0),
          .way = {.via = guest.is4() ? kOtherEnd4 : kOtherEnd6, .interface = interface}};
}

}  // namespace

void be_relay(const std::string& interface, const std::set<Ip>& guests) {
  have_host_forward(true);
  const std::string ip4 = "net/ipv4/conf/" + interface;
  set_kernel(ip4 + "/send_redirects", "0");
  accept_detours(interface);  // correspondents' packets come by here, who are routed another way
  Netlink netlink;
  netlink.set_mac(interface, kGatewayMac);
  netlink.add_neighbour(interface, kOtherEnd4, kGatewayMac);
  if (std::ranges::all_of(guests, &Ip::is4)) return;
  have_host_forward(false);
  set_kernel("net/ipv6/conf/" + interface + "/disable_ipv6", "0");
  set_kernel("net/ipv6/conf/" + interface + "/accept_ra", "0");
  netlink.add_neighbour(interface, kOtherEnd6, kGatewayMac);
}

// Loose checks (RFC 3704, 2.4) are none for an interface without addresses: Linux refuses all that
// it does not route by it.
void accept_detours(const std::string& interface) {
  if (kernel_setting("net/ipv4/conf/all/rp_filter") != "0") {
    fail_setup(
        "interface {} would refuse what takes another way back: net.ipv4.conf.all.rp_filter is not "
        "0; set it so, and .default.rp_filter as it shall be for others",
        interface);
  }
  set_kernel("net/ipv4/conf/" + interface + "/rp_filter", "0");
}

void send_by_relay(const std::string& interface, const std::set<Ip>& guests) {
  Netlink netlink;
  for (const Ip& guest : guests) netlink.add_marked_way(marked_way(netlink, interface, guest));
}

void stop_sending_by_relay(const std::set<Ip>& guests) {
  Netlink netlink;
  for (const Ip& guest : guests) {
    netlink.remove_marked_way({.source = alone(guest), .mark = kRelayMark});
  }
}

void receive_by_relay(const std::string& interface, const std::set<Ip>& guests,
                      const std::string& uplink) {
  Netlink netlink;
  const auto table = kFirstArrivingTable + static_cast<std::uint32_t>(netlink.link(uplink).index);
  for (const Ip& guest : guests) {
    netlink.add_arriving_way(
        {.by = interface, .to = alone(guest), .table = table, .interface = uplink});
  }
}

void stop_receiving_by_relay(const std::string& interface, const std::set<Ip>& guests) {
  Netlink netlink;
  for (const Ip& guest : guests) {
    netlink.remove_arriving_way({.by = interface, .to = alone(guest)});
  }
}

void route_to_relay(const std::string& interface, const std::set<Ip>& guests) {
  Netlink netlink;
  for (const Ip& guest : guests) {
    netlink.add_neighbour(interface, guest.text(), kGatewayMac);
    netlink.replace_route(alone(guest), interface);
  }
}

}  // namespace godwit::os
