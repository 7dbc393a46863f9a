#include "os/connections.hh"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <libnetfilter_conntrack/libnetfilter_conntrack.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_conntrack_sctp.h>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <span>

#include "base/check.hh"

namespace godwit::os {
namespace {

struct Closer {
  void operator()(nf_conntrack* entry) const { ::nfct_destroy(entry); }
  void operator()(mnl_socket* socket) const { ::mnl_socket_close(socket); }
};
using Entry = std::unique_ptr<nf_conntrack, Closer>;
using Socket = std::unique_ptr<mnl_socket, Closer>;

// So that the answers, at most one to each, fit into a socket's buffer of the default size.
constexpr std::size_t kBatch = 128, kMessageLimit = 512;

Entry make_entry() {
  Entry entry(::nfct_new());
  CHECK(entry != nullptr);
  return entry;
}

bool is_echo(std::uint8_t protocol) {
  return protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6;
}

// Whatever another host says: of a kind that is known, and of one family. The kernel takes others.
bool is_possible(const Connection& connection) {
  const bool is4 = connection.guest.is4();
  if (connection.peer.is4() != is4) return false;
  switch (connection.protocol) {
    case IPPROTO_TCP:
    case IPPROTO_UDP:
    case IPPROTO_SCTP:
      return true;
    case IPPROTO_ICMP:
      return is4;
    case IPPROTO_ICMPV6:
      return !is4;
    default:
      return false;
  }
}

std::vector<Connection> possible(const std::vector<Connection>& connections) {
  std::vector<Connection> some;
  std::ranges::copy_if(connections, std::back_inserter(some), is_possible);
  return some;
}

// --- a connection from the kernel's entry -------------------------------------------------------

std::optional<Ip> ip_of(const nf_conntrack* entry, nf_conntrack_attr v4, nf_conntrack_attr v6) {
  if (const void* at = ::nfct_get_attr(entry, v4)) {
    return Ip::at4(static_cast<const std::byte*>(at));
  }
  if (const void* at = ::nfct_get_attr(entry, v6)) {
    return Ip::at6(static_cast<const std::byte*>(at));
  }
  return std::nullopt;
}

std::uint16_t port_of(const nf_conntrack* entry, nf_conntrack_attr attribute) {
  return ntohs(::nfct_get_attr_u16(entry, attribute));
}

// What is the same whoever sees it; nothing if it is of no kind that is known.
std::optional<Connection> known_kind(const nf_conntrack* entry) {
  Connection connection{.protocol = ::nfct_get_attr_u8(entry, ATTR_L4PROTO)};
  switch (connection.protocol) {
    case IPPROTO_TCP:
      connection.state = ::nfct_get_attr_u8(entry, ATTR_TCP_STATE);
      break;
    case IPPROTO_SCTP:
      connection.state = ::nfct_get_attr_u8(entry, ATTR_SCTP_STATE);
      break;
    case IPPROTO_UDP:
      break;
    case IPPROTO_ICMP:
      if (::nfct_get_attr_u8(entry, ATTR_ICMP_TYPE) != ICMP_ECHO) return std::nullopt;
      break;
    case IPPROTO_ICMPV6:
      if (::nfct_get_attr_u8(entry, ATTR_ICMP_TYPE) != ICMP6_ECHO_REQUEST) return std::nullopt;
      break;
    default:
      return std::nullopt;
  }
  const auto status = ::nfct_get_attr_u32(entry, ATTR_STATUS);
  connection.replied = (status & IPS_SEEN_REPLY) != 0;
  connection.assured = (status & IPS_ASSURED) != 0;
  connection.timeout_s = ::nfct_get_attr_u32(entry, ATTR_TIMEOUT);
  connection.mark = ::nfct_get_attr_u32(entry, ATTR_MARK);
  return connection;
}

// Of whoever began it, and of whom it is with: if somebody translates addresses, each has its own
// view.
Connection seen(const nf_conntrack* entry, Connection connection, bool from_guest) {
  connection.from_guest = from_guest;
  const auto sport = from_guest ? ATTR_ORIG_PORT_SRC : ATTR_REPL_PORT_SRC;
  const auto dport = from_guest ? ATTR_ORIG_PORT_DST : ATTR_REPL_PORT_DST;
  connection.guest_port = port_of(entry, is_echo(connection.protocol) ? ATTR_ICMP_ID : sport);
  connection.peer_port = port_of(entry, is_echo(connection.protocol) ? ATTR_ICMP_ID : dport);
  if (connection.protocol == IPPROTO_SCTP) {
    const auto there = ::nfct_get_attr_u32(entry, ATTR_SCTP_VTAG_ORIG);
    const auto back = ::nfct_get_attr_u32(entry, ATTR_SCTP_VTAG_REPL);
    connection.guest_tag = ntohl(from_guest ? back : there);
    connection.peer_tag = ntohl(from_guest ? there : back);
  }
  return connection;
}

struct Listing {
  const std::set<Ip>& addresses;
  std::vector<Connection> found{};

  void take(const nf_conntrack* entry) {
    if (::nfct_get_attr_u16(entry, ATTR_ZONE) != 0) return;
    look(entry, true, ip_of(entry, ATTR_ORIG_IPV4_SRC, ATTR_ORIG_IPV6_SRC),
         ip_of(entry, ATTR_ORIG_IPV4_DST, ATTR_ORIG_IPV6_DST));
    look(entry, false, ip_of(entry, ATTR_REPL_IPV4_SRC, ATTR_REPL_IPV6_SRC),
         ip_of(entry, ATTR_REPL_IPV4_DST, ATTR_REPL_IPV6_DST));
  }
  void look(const nf_conntrack* entry, bool from_guest, std::optional<Ip> guest,
            std::optional<Ip> peer) {
    if (!guest || !peer || !addresses.contains(*guest)) return;
    auto connection = known_kind(entry);
    if (!connection) return;
    connection->guest = *guest;
    connection->peer = *peer;
    found.push_back(seen(entry, *connection, from_guest));
  }
};

// --- the kernel's entry for a connection --------------------------------------------------------

void set_ip(nf_conntrack* entry, nf_conntrack_attr v4, nf_conntrack_attr v6, const Ip& ip) {
  std::array<std::byte, 16> bytes{};
  ip.write(bytes.data());
  ::nfct_set_attr(entry, ip.is4() ? v4 : v6, bytes.data());
}

// Its addresses and ports, both ways.
Entry named(const Connection& connection) {
  Entry made = make_entry();
  auto* const entry = made.get();
  const auto& [source, target] = connection.from_guest
                                     ? std::pair(connection.guest, connection.peer)
                                     : std::pair(connection.peer, connection.guest);
  ::nfct_set_attr_u8(entry, ATTR_L3PROTO, connection.guest.is4() ? AF_INET : AF_INET6);
  ::nfct_set_attr_u8(entry, ATTR_L4PROTO, connection.protocol);
  set_ip(entry, ATTR_ORIG_IPV4_SRC, ATTR_ORIG_IPV6_SRC, source);
  set_ip(entry, ATTR_ORIG_IPV4_DST, ATTR_ORIG_IPV6_DST, target);
  const auto guest_port = htons(connection.guest_port), peer_port = htons(connection.peer_port);
  if (is_echo(connection.protocol)) {
    const bool is4 = connection.protocol == IPPROTO_ICMP;
    ::nfct_set_attr_u8(entry, ATTR_ICMP_TYPE, is4 ? ICMP_ECHO : ICMP6_ECHO_REQUEST);
    ::nfct_set_attr_u8(entry, ATTR_ICMP_CODE, 0);
    ::nfct_set_attr_u16(entry, ATTR_ICMP_ID, guest_port);
  } else {
    ::nfct_set_attr_u16(entry, ATTR_ORIG_PORT_SRC, connection.from_guest ? guest_port : peer_port);
    ::nfct_set_attr_u16(entry, ATTR_ORIG_PORT_DST, connection.from_guest ? peer_port : guest_port);
  }
  ::nfct_setobjopt(entry, NFCT_SOPT_SETUP_REPLY);
  return made;
}

std::uint8_t tcp_state_to_add(std::uint8_t state) {
  const bool is_half_closed = state == TCP_CONNTRACK_FIN_WAIT || state == TCP_CONNTRACK_CLOSE_WAIT;
  return is_half_closed || state == TCP_CONNTRACK_NONE ? std::uint8_t{TCP_CONNTRACK_ESTABLISHED}
                                                       : state;
}

void set_state(nf_conntrack* entry, const Connection& connection) {
  if (connection.protocol == IPPROTO_TCP) {
    ::nfct_set_attr_u8(entry, ATTR_TCP_STATE, tcp_state_to_add(connection.state));
  }
  if (connection.protocol == IPPROTO_SCTP) {
    ::nfct_set_attr_u8(entry, ATTR_SCTP_STATE, connection.state);
    const bool there = connection.from_guest;
    const auto guest = htonl(connection.guest_tag), peer = htonl(connection.peer_tag);
    ::nfct_set_attr_u32(entry, ATTR_SCTP_VTAG_ORIG, there ? peer : guest);
    ::nfct_set_attr_u32(entry, ATTR_SCTP_VTAG_REPL, there ? guest : peer);
  }
}

void set_status(nf_conntrack* entry, const Connection& connection) {
  std::uint32_t status = IPS_CONFIRMED;
  if (connection.replied || connection.assured) status |= IPS_SEEN_REPLY;
  if (connection.assured) status |= IPS_ASSURED;
  ::nfct_set_attr_u32(entry, ATTR_STATUS, status);
}

void be_liberal(nf_conntrack* entry) {
  for (const auto attribute :
       {ATTR_TCP_FLAGS_ORIG, ATTR_TCP_MASK_ORIG, ATTR_TCP_FLAGS_REPL, ATTR_TCP_MASK_REPL}) {
    ::nfct_set_attr_u8(entry, attribute, IP_CT_TCP_FLAG_BE_LIBERAL);
  }
}

// What both a new entry and one that is there get.
Entry described(const Connection& connection) {
  Entry entry = named(connection);
  ::nfct_set_attr_u32(entry.get(), ATTR_TIMEOUT, connection.timeout_s);
  ::nfct_set_attr_u32(entry.get(), ATTR_MARK, connection.mark);
  if (connection.protocol == IPPROTO_TCP) be_liberal(entry.get());
  return entry;
}

Entry to_create(const Connection& connection) {
  Entry entry = described(connection);
  set_status(entry.get(), connection);
  set_state(entry.get(), connection);
  return entry;
}

// It may have seen packets that the other host has not: what they told is not taken back (and the
// kernel would refuse it for the status).
Entry to_update(const Connection& connection) {
  Entry entry = described(connection);
  if (connection.assured) set_status(entry.get(), connection);
  if (connection.is_over()) set_state(entry.get(), connection);
  return entry;
}

// --- messages -----------------------------------------------------------------------------------

Socket open_socket() {
  Socket socket(::mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC));
  if (!socket || ::mnl_socket_bind(socket.get(), 0, MNL_SOCKET_AUTOPID) < 0) {
    fail_setup("{}", errno_text("open a netlink socket for connection tracking"));
  }
  const int yes = 1;  // an error does not repeat the message it is about
  (void)::mnl_socket_setsockopt(socket.get(), NETLINK_CAP_ACK, const_cast<int*>(&yes), sizeof yes);
  return socket;
}

nlmsghdr* put_message(char* at, std::uint16_t type, std::uint16_t flags, std::uint8_t family) {
  nlmsghdr* const header = ::mnl_nlmsg_put_header(at);
  header->nlmsg_type = static_cast<std::uint16_t>(NFNL_SUBSYS_CTNETLINK << 8 | type);
  header->nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
  const nfgenmsg about{.nfgen_family = family, .version = NFNETLINK_V0, .res_id = 0};
  std::memcpy(::mnl_nlmsg_put_extra_header(header, sizeof about), &about, sizeof about);
  return header;
}

std::size_t receive(const Socket& socket, std::span<char> buffer) {
  const auto size = ::mnl_socket_recvfrom(socket.get(), buffer.data(), buffer.size());
  if (size < 0) fail_setup("{}", errno_text("hear from the kernel's connection tracking"));
  return static_cast<std::size_t>(size);
}

// The errors of one batch, by message. Only the last message asks for an answer when it is done:
// by then all before it are.
std::map<std::size_t, int> answers(const Socket& socket, std::size_t messages,
                                   std::span<char> buffer) {
  std::map<std::size_t, int> errors;
  for (bool done = false; !done;) {
    const std::size_t size = receive(socket, buffer);
    int left = static_cast<int>(size);
    for (const auto* message = reinterpret_cast<const nlmsghdr*>(buffer.data());
         ::mnl_nlmsg_ok(message, left); message = ::mnl_nlmsg_next(message, &left)) {
      if (message->nlmsg_type != NLMSG_ERROR) continue;
      const auto* answer = static_cast<const nlmsgerr*>(::mnl_nlmsg_get_payload(message));
      if (answer->error != 0) errors[message->nlmsg_seq] = -answer->error;
      done = done || message->nlmsg_seq + 1 == messages;
    }
  }
  return errors;
}

// A message for each connection; how long they are.
template <class Make>
std::size_t build_batch(std::span<const Connection> batch, std::uint16_t type, std::uint16_t flags,
                        Make&& make, std::span<char> buffer) {
  std::size_t used = 0;
  for (std::size_t i = 0; i < batch.size(); ++i) {
    const Entry entry = make(batch[i]);
    const bool is_last = i + 1 == batch.size();
    auto* const header = put_message(&buffer[used], type,
                                     static_cast<std::uint16_t>(flags | (is_last ? NLM_F_ACK : 0)),
                                     ::nfct_get_attr_u8(entry.get(), ATTR_L3PROTO));
    header->nlmsg_seq = static_cast<std::uint32_t>(i);
    CHECK(::nfct_nlmsg_build(header, entry.get()) == 0);
    CHECK(header->nlmsg_len <= kMessageLimit);
    used += MNL_ALIGN(header->nlmsg_len);
  }
  return used;
}

// Sends it and hears what the kernel says; the errors, by connection.
template <class Make>
std::map<std::size_t, int> send_each(std::span<const Connection> connections, std::uint16_t type,
                                     std::uint16_t flags, Make&& make) {
  std::map<std::size_t, int> errors;
  if (connections.empty()) return errors;
  const Socket socket = open_socket();
  std::vector<char> buffer(kBatch * kMessageLimit);
  for (std::size_t first = 0; first < connections.size(); first += kBatch) {
    const auto batch = connections.subspan(first, std::min(kBatch, connections.size() - first));
    const std::size_t used = build_batch(batch, type, flags, make, buffer);
    if (::mnl_socket_sendto(socket.get(), buffer.data(), used) < 0) {
      fail_setup("{}", errno_text("write to the kernel's connection tracking"));
    }
    for (const auto& [i, error] : answers(socket, batch.size(), buffer)) errors[first + i] = error;
  }
  return errors;
}

Result<> failed(std::size_t all, const std::vector<int>& errors) {
  if (errors.empty()) return {};
  const int error = errors.front();
  return fail("have the kernel track {} connections: {} could not be added: {}{}", all,
              errors.size(), std::strerror(error),
              error == ENOMEM ? " (its table is full: sysctl net.netfilter.nf_conntrack_max)" : "");
}

// --- all connections ----------------------------------------------------------------------------

std::uint8_t family_of(const std::set<Ip>& addresses) {
  const auto is4 = [](const Ip& address) { return address.is4(); };
  if (std::ranges::all_of(addresses, is4)) return AF_INET;
  return std::ranges::none_of(addresses, is4) ? AF_INET6 : AF_UNSPEC;
}

int take_message(const nlmsghdr* message, void* listing) {
  const Entry entry = make_entry();
  if (::nfct_nlmsg_parse(message, entry.get()) == 0) {
    static_cast<Listing*>(listing)->take(entry.get());
  }
  return MNL_CB_OK;
}

}  // namespace

bool Connection::is_over() const {
  if (protocol == IPPROTO_TCP) {
    return state == TCP_CONNTRACK_TIME_WAIT || state == TCP_CONNTRACK_CLOSE;
  }
  return protocol == IPPROTO_SCTP && state == SCTP_CONNTRACK_CLOSED;
}

std::vector<Connection> connections_of(const std::set<Ip>& addresses) {
  Listing listing{.addresses = addresses};
  if (addresses.empty()) return {};
  const Socket socket = open_socket();
  std::vector<char> buffer(1U << 16);
  const auto* const asked =
      put_message(buffer.data(), IPCTNL_MSG_CT_GET, NLM_F_DUMP, family_of(addresses));
  if (::mnl_socket_sendto(socket.get(), asked, asked->nlmsg_len) < 0) {
    fail_setup("{}", errno_text("ask for the connections that the kernel tracks"));
  }
  const unsigned port = ::mnl_socket_get_portid(socket.get());
  for (int more = MNL_CB_OK; more > MNL_CB_STOP;) {
    more = ::mnl_cb_run(buffer.data(), receive(socket, buffer), 0, port, take_message, &listing);
    if (more == MNL_CB_ERROR) {
      fail_setup("{}", errno_text("list the connections that the kernel tracks"));
    }
  }
  // The table may have been changed, and an entry met twice.
  std::ranges::sort(listing.found);
  const auto twice = std::ranges::unique(listing.found);
  listing.found.erase(twice.begin(), twice.end());
  return std::move(listing.found);
}

Result<> add_connections(const std::vector<Connection>& connections) try {
  const auto wanted = possible(connections);
  std::vector<int> errors(connections.size() - wanted.size(), EINVAL);
  std::vector<Connection> there;
  for (const auto& [i, error] :
       send_each(wanted, IPCTNL_MSG_CT_NEW, NLM_F_CREATE | NLM_F_EXCL, to_create)) {
    if (error == EEXIST) {
      there.push_back(wanted[i]);
    } else {
      errors.push_back(error);
    }
  }
  for (const auto& [i, error] : send_each(there, IPCTNL_MSG_CT_NEW, 0, to_update)) {
    errors.push_back(error);
  }
  return failed(connections.size(), errors);
} catch (const SetupError& error) {
  return fail("{}", error.what());
}

void remove_connections(const std::vector<Connection>& connections) {
  for (const auto& [i, error] : send_each(possible(connections), IPCTNL_MSG_CT_DELETE, 0, named)) {
    if (error != ENOENT) fail_setup("forget a tracked connection: {}", std::strerror(error));
  }
}

}  // namespace godwit::os
