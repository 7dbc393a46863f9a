#include "os/address_claim.hh"

#include <libmnl/libmnl.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "os/announce.hh"
#include "os/kernel_setting.hh"
#include "os/netlink.hh"

namespace godwit::os {
namespace {

// Of the routes that are ours; no number of /etc/iproute2/rt_protos.
constexpr std::uint8_t kOwner = 71;
// Beside the route to a guest that is here still: that one is the better.
constexpr std::uint32_t kMetric = 4096;

std::string alone(const Ip& address) {
  return IpPrefix{address, static_cast<std::uint8_t>(address.is4() ? 32 : 128)}.text();
}

struct SocketCloser {
  void operator()(mnl_socket* socket) const { ::mnl_socket_close(socket); }
};

// What the kernel lists when it is asked with `body`, each message given to `take`. It is strict:
// what the body says is what is listed, and not the whole of a core router's table.
template <class Body, class Take>
void list(std::uint16_t type, const Body& body, Take take) {
  const std::unique_ptr<mnl_socket, SocketCloser> socket(
      ::mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC));
  if (!socket || ::mnl_socket_bind(socket.get(), 0, MNL_SOCKET_AUTOPID) < 0) {
    fail_setup("{}", errno_text("open a netlink socket"));
  }
  const int yes = 1;
  ::setsockopt(::mnl_socket_get_fd(socket.get()), SOL_NETLINK, NETLINK_GET_STRICT_CHK, &yes,
               sizeof yes);
  std::vector<char> buffer(1U << 16);
  nlmsghdr* const header = ::mnl_nlmsg_put_header(buffer.data());
  header->nlmsg_type = type;
  header->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  std::memcpy(::mnl_nlmsg_put_extra_header(header, sizeof body), &body, sizeof body);
  if (::mnl_socket_sendto(socket.get(), header, header->nlmsg_len) < 0) {
    fail_setup("{}", errno_text("ask the kernel for what is claimed"));
  }
  const auto call = [](const nlmsghdr* message, void* taker) {
    (*static_cast<Take*>(taker))(message);
    return MNL_CB_OK;
  };
  const unsigned port = ::mnl_socket_get_portid(socket.get());
  for (int more = MNL_CB_OK; more > MNL_CB_STOP;) {
    const auto size = ::mnl_socket_recvfrom(socket.get(), buffer.data(), buffer.size());
    more = size < 0
               ? MNL_CB_ERROR
               : ::mnl_cb_run(buffer.data(), static_cast<std::size_t>(size), 0, port, call, &take);
    if (more == MNL_CB_ERROR) fail_setup("{}", errno_text("list what is claimed"));
  }
}

// The attribute, if it is an address.
std::optional<Ip> ip_of(const nlmsghdr* message, std::size_t skip, std::uint16_t type) {
  struct Search {
    std::uint16_t type;
    std::optional<Ip> found{};
  } search{.type = type};
  const auto look = [](const nlattr* attribute, void* into) {
    auto& wanted = *static_cast<Search*>(into);
    if (::mnl_attr_get_type(attribute) != wanted.type) return MNL_CB_OK;
    const auto* at = static_cast<const std::byte*>(::mnl_attr_get_payload(attribute));
    const std::size_t size = ::mnl_attr_get_payload_len(attribute);
    if (size == 4) wanted.found = Ip::at4(at);
    if (size == 16) wanted.found = Ip::at6(at);
    return MNL_CB_OK;
  };
  ::mnl_attr_parse(message, static_cast<unsigned>(skip), look, &search);
  return search.found;
}

void read_routes(bool is4, Claims& claims) {
  rtmsg asked{};
  asked.rtm_family = is4 ? AF_INET : AF_INET6;
  asked.rtm_table = RT_TABLE_MAIN;
  asked.rtm_protocol = kOwner;
  list(RTM_GETROUTE, asked, [&](const nlmsghdr* message) {
    const auto* route = static_cast<const rtmsg*>(::mnl_nlmsg_get_payload(message));
    if (route->rtm_protocol != kOwner || route->rtm_table != RT_TABLE_MAIN) return;
    if (route->rtm_dst_len != (is4 ? 32 : 128)) return;
    if (const auto to = ip_of(message, sizeof *route, RTA_DST)) {
      claims.routes.insert(*to);
    }
  });
}

void read_proxies(bool is4, Claims& claims) {
  ndmsg asked{};
  asked.ndm_family = is4 ? AF_INET : AF_INET6;
  asked.ndm_flags = NTF_PROXY;
  list(RTM_GETNEIGH, asked, [&](const nlmsghdr* message) {
    const auto* neighbour = static_cast<const ndmsg*>(::mnl_nlmsg_get_payload(message));
    if ((neighbour->ndm_flags & NTF_PROXY) == 0) return;
    std::array<char, IF_NAMESIZE> name{};
    if (::if_indextoname(static_cast<unsigned>(neighbour->ndm_ifindex), name.data()) == nullptr) {
      return;
    }
    if (const auto of = ip_of(message, sizeof *neighbour, NDA_DST)) {
      claims.proxies[*of].insert(name.data());
    }
  });
}

}  // namespace

bool Claims::has(const std::string& interface, const Ip& address) const {
  const auto found = proxies.find(address);
  return routes.contains(address) && found != proxies.end() && found->second.contains(interface);
}

Claims read_claims() {
  Claims claims;
  for (const bool is4 : {true, false}) {
    read_routes(is4, claims);
    read_proxies(is4, claims);
  }
  return claims;
}

void answer_for(const std::string& interface, const Ip& address) {
  make_proxy(interface, address.is4());
  Netlink netlink;
  netlink.add_route(alone(address), {}, "lo", kOwner, kMetric);
  netlink.add_proxy_neighbour(interface, address.text());
}

void claim(const std::string& interface, const Ip& address) {
  answer_for(interface, address);
  if (const auto told = announce(interface, address); !told) fail_setup("{}", told.error().text);
}

void unclaim(const std::string& interface, const Ip& address) {
  Netlink netlink;
  if (!interface.empty() && netlink.find(interface))
    netlink.remove_proxy_neighbour(interface, address.text());
  netlink.remove_route(alone(address), kOwner);
}

}  // namespace godwit::os
