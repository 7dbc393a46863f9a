#include "os/address_claim.hh"

#include "os/announce.hh"
#include "os/forwarding.hh"
#include "os/netlink.hh"

namespace godwit::os {
namespace {

// Beside the route to a guest that is here still: that one is the better.
constexpr std::uint32_t kClaimMetric = 4096;

std::string alone(const Ip& address) {
  return IpPrefix{address, static_cast<std::uint8_t>(address.is4() ? 32 : 128)}.text();
}

}  // namespace

void answer_for(const std::string& interface, const Ip& address) {
  make_proxy(interface, address.is4());
  Netlink netlink;
  netlink.add_route(alone(address), {}, "lo", kClaimMetric);
  netlink.add_proxy_neighbour(interface, address.text());
}

void claim(const std::string& interface, const Ip& address) {
  answer_for(interface, address);
  if (const auto told = announce(interface, address); !told) fail_setup("{}", told.error().text);
}

void unclaim(const std::string& interface, const Ip& address) {
  Netlink netlink;
  netlink.remove_proxy_neighbour(interface, address.text());
  netlink.remove_route(alone(address), "lo");
}

}  // namespace godwit::os
