#include "os/guest_route.hh"

#include "os/address_claim.hh"
#include "os/forwarding.hh"
#include "os/kernel_setting.hh"
#include "os/netlink.hh"
#include "os/segment.hh"

namespace godwit::os {
namespace {

constexpr const char* kGateway6 = "fe80::1/64";

// While an uplink is held nobody reads its TAP, and the guest does not say where it is: what comes
// for it waits until it does. The kernel would keep 208 KiB of that, some 170 small frames, then
// drop the oldest, and all after three questions of a second each.
constexpr const char* kMostWaiting = "33554432";  // bytes, of each address
constexpr const char* kMostQuestions = "10";

std::string alone(const Ip& address) {
  return IpPrefix{address, static_cast<std::uint8_t>(address.is4() ? 32 : 128)}.text();
}

void keep_what_waits(const std::string& family, const std::string& interface) {
  const std::string neighbours = "net/" + family + "/neigh/" + interface;
  set_kernel(neighbours + "/unres_qlen_bytes", kMostWaiting);
  set_kernel(neighbours + "/mcast_solicit", kMostQuestions);
}

}  // namespace

void be_gateway(const std::string& interface, bool for_ip6) {
  have_host_forward(true);
  const std::string ip4 = "net/ipv4/conf/" + interface;
  set_kernel(ip4 + "/proxy_arp", "1");
  set_kernel(ip4 + "/send_redirects", "0");
  set_kernel("net/ipv4/neigh/" + interface + "/proxy_delay", "0");
  keep_what_waits("ipv4", interface);
  if (!for_ip6) return;
  have_host_forward(false);
  set_kernel("net/ipv6/conf/" + interface + "/disable_ipv6", "0");
  set_kernel("net/ipv6/conf/" + interface + "/accept_ra", "0");
  keep_what_waits("ipv6", interface);
  Netlink().add_address(interface, kGateway6);
}

void route_guest(const std::string& interface, const Ip& address) {
  Netlink netlink;
  netlink.replace_route(alone(address), interface);  // it may have been behind another
  const auto segment = segment_of(address);
  if (!segment) return;
  make_proxy(*segment, address.is4());
  netlink.add_proxy_neighbour(*segment, address.text());
}

void unroute_guest(const Ip& address) {
  Netlink netlink;
  netlink.remove_route(alone(address));
  const auto segment = segment_of(address);
  if (segment && !read_claims().routes.contains(address)) {
    netlink.remove_proxy_neighbour(*segment, address.text());
  }
}

}  // namespace godwit::os
