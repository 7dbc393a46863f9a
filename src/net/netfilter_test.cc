// The kernel's conntrack, NAT and nftables as the reference: the same packets through both routers
// come out alike, or not at all. In a network namespace of the test's own; needs root, or is
// skipped.
//
//   10.7.0.0/16 ── p1 [ router: filter, NAT ] p0 192.0.2.1 ── everything else
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <thread>

#include "net/tracker_traffic.hh"

namespace godwit::net {
namespace {

constexpr int kPackets = 4000;
constexpr int kMostWaits = 50;  // milliseconds

// As the tracker's rules below; what is for the router itself, or from it, is of no interest here.
constexpr const char* kScript = R"(
set -e
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
for c in all default p0 p1; do
  sysctl -qw net.ipv4.conf.$c.rp_filter=0 net.ipv4.conf.$c.send_redirects=0
  sysctl -qw net.ipv6.conf.$c.accept_dad=0 net.ipv6.conf.$c.mc_forwarding=0 || true
done 2>/dev/null
ip link set p0 address 02:00:00:00:00:b0 up
ip link set p1 address 02:00:00:00:00:b1 up
ip addr add 192.0.2.1/24 dev p0
ip addr add 10.7.0.1/16 dev p1
ip -6 addr add 2001:db8::1/64 dev p0 nodad
ip -6 addr add fd07::1/64 dev p1 nodad
for i in 2 3 4 9; do
  ip neigh add 10.7.0.$i lladdr 02:00:00:00:00:0a dev p1 nud permanent
  ip -6 neigh add fd07::$i lladdr 02:00:00:00:00:0a dev p1 nud permanent
done
ip neigh add 192.0.2.254 lladdr 02:00:00:00:00:0a dev p0 nud permanent
ip -6 neigh add 2001:db8::fe lladdr 02:00:00:00:00:0a dev p0 nud permanent
ip route add default via 192.0.2.254
ip -6 route add default via 2001:db8::fe
nft -f - <<END
table inet t {
  chain pre {
    type nat hook prerouting priority dstnat;
    ip daddr 192.0.2.1 tcp dport 8000 dnat ip to 10.7.0.9:80
    ip daddr 203.0.113.4 dnat ip to 10.7.0.4
  }
  chain post {
    type nat hook postrouting priority srcnat;
    oifname p0 ip saddr 10.7.0.4 snat ip to 203.0.113.4
    oifname p0 ip saddr 10.7.0.0/16 masquerade
    oifname p0 ip6 saddr fd07::3 masquerade
    oifname p1 iifname p1 ct status dnat snat ip to 10.7.0.1
  }
  chain forward {
    type filter hook forward priority 0; policy drop;
    ct state invalid drop
    ct state established,related accept
    iifname p1 tcp dport 82 drop
    iifname p1 accept
    ip daddr 10.7.0.9 tcp dport 80-81 accept
    ip daddr 10.7.0.0/29 udp dport 80-81 accept
    icmp type echo-request ip daddr 10.7.0.2 accept
    icmpv6 type echo-request accept
  }
  chain input { type filter hook input priority 0; policy drop; }
  chain output { type filter hook output priority 0; policy drop; }
}
END
sysctl -qw net.netfilter.nf_conntrack_tcp_be_liberal=1
)";

TrackerConfig as_the_script_says(bool picks_up) {
  const std::vector<FilterRule> rules{
      {.action = Action::drop, .in = {kInside}, .protocol = kTcp, .destination_ports = {{82, 82}}},
      {.in = {kInside}},
      {.to = {prefix("10.7.0.9")}, .protocol = kTcp, .destination_ports = {{80, 81}}},
      {.to = {prefix("10.7.0.0/29")}, .protocol = kUdp, .destination_ports = {{80, 81}}},
      {.to = {prefix("10.7.0.2")}, .protocol = kIcmp, .icmp_types = {8}},
      {.protocol = kIcmp6, .icmp_types = {128}}};
  return {.filter = {.rules = rules, .otherwise = Action::drop},
          .nat = {.masquerade = {{.out = {kOutside}, .from = {prefix("10.7.0.0/16")}},
                                 {.out = {kOutside}, .from = {prefix("fd07::3")}}},
                  .forward = {{.address = ip("192.0.2.1"),
                               .protocol = kTcp,
                               .ports = {8000, 8000},
                               .to = ip("10.7.0.9"),
                               .to_port = 80}},
                  .one_to_one = {{.out = {kOutside},
                                  .outside = prefix("203.0.113.4"),
                                  .inside = prefix("10.7.0.4")}}},
          .pick_up = picks_up ? PickUp::always : PickUp::never};
}

bool run(const std::string& script) { return std::system(script.c_str()) == 0; }

// What came out where: all that both must agree on.
struct Seen {
  PortIndex port = 0;
  Ip source{}, destination{};
  int protocol = 0, hops = 0;
  std::string layer4{};
  bool operator==(const Seen&) const = default;
  friend void PrintTo(const Seen& seen, std::ostream* out) {
    *out << "port " << seen.port << ", " << seen.source.text() << " -> " << seen.destination.text()
         << ", protocol " << seen.protocol << ": " << seen.layer4;
  }
};
std::optional<Seen> seen(PortIndex port, BytesView frame, int hops_less) {
  const auto packet = read_ip_frame(frame);
  if (!packet) return std::nullopt;
  return Seen{port,
              packet->source,
              packet->destination,
              packet->protocol,
              packet->hops - hops_less,
              to_hex(frame.subspan(packet->l4, packet->end - packet->l4))};
}

class KernelRouter final {
 public:
  // False: there is none here.
  bool make(bool picks_up) {
    for (const char* name : {"p0", "p1"}) {
      const int tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
      ifreq request{};
      fmt::format_to_n(request.ifr_name, IFNAMSIZ, "{}", name);
      request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
      if (ioctl(tap, TUNSETIFF, &request) != 0) return false;
      taps_.push_back(tap);
    }
    return run(fmt::format("( {} sysctl -qw net.netfilter.nf_conntrack_tcp_loose={} ) 2>/dev/null",
                           kScript, picks_up ? 1 : 0));
  }
  ~KernelRouter() {
    for (const int tap : taps_) close(tap);
  }
  // What came out of the packets of these two; waits for one if there should be one.
  std::optional<Seen> cross(PortIndex from, Bytes frame, bool is_expected) {
    write_mac(from == kOutside ? 0x0200000000b0 : 0x0200000000b1, &frame[kMacsAt]);
    EXPECT_EQ(write(taps_[from], frame.data(), frame.size()), ssize_t(frame.size()));
    for (int waits = 0; waits < (is_expected ? kMostWaits : 1); ++waits) {
      if (auto out = read_one()) return out;
      std::vector<pollfd> polled;
      for (const int tap : taps_) polled.push_back({.fd = tap, .events = POLLIN, .revents = 0});
      if (is_expected) poll(polled.data(), polled.size(), 1);
    }
    return std::nullopt;
  }

 private:
  std::optional<Seen> read_one() {
    Bytes got(wire::kMaxFrameBytes);
    for (PortIndex port = 0; port < taps_.size(); ++port) {
      for (ssize_t size = 0; (size = read(taps_[port], got.data(), got.size())) > 0;) {
        if (mac_at(&got[kMacsAt]) != 0x02000000000a) continue;  // to groups: of the kernel's own
        const BytesView frame = BytesView(got).first(static_cast<std::size_t>(size));
        if (auto out = seen(port, frame, 0)) return out;
      }
    }
    return std::nullopt;
  }
  std::vector<int> taps_;
};

// Ours, with the same routes.
struct OurRouter {
  Tracker tracker;
  std::string_view cause{};
  Bytes frame{};  // what came out

  std::optional<Seen> cross(PortIndex from, Bytes came) {
    frame = std::move(came);
    auto packet = read_ip_frame(frame).value();
    const Instant now = Instant{} + seconds(1);
    Ticket ticket;
    cause = tracker.arrive(frame, packet, from, now, ticket);
    if (!cause.empty()) return std::nullopt;
    const PortIndex out = TrackerTest::port_of(packet.destination);
    cause = tracker.leave(frame, packet, ticket, out, TrackerTest::own(out, packet.is_ip4), now);
    if (!cause.empty() || out == kItself) return std::nullopt;
    return seen(out, arrived(frame), 1);
  }
};

// False: there is no such router here.
bool compare(unsigned seed, bool picks_up) {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  CPU_SET(sched_getcpu(), &cpus);
  if (unshare(CLONE_NEWNET) != 0 || sched_setaffinity(0, sizeof cpus, &cpus) != 0) return false;
  KernelRouter kernel;
  if (!kernel.make(picks_up)) return false;
  OurRouter ours{.tracker = Tracker(as_the_script_says(picks_up), seed)};
  Traffic traffic{.random = wire::testing::Random(seed)};
  int passed = 0;
  const auto both = [&](const Bytes& frame, PortIndex from) {
    const auto expected = ours.cross(from, frame);
    const auto got = kernel.cross(from, frame, expected.has_value());
    EXPECT_EQ(expected, got) << "seed " << seed << ", ours: " << ours.cause
                             << ", came: " << testing::PrintToString(seen(from, frame, 0));
    passed += expected ? 1 : 0;
    return expected.has_value();
  };
  for (int i = 0; i < kPackets && !testing::Test::HasFailure(); ++i) {
    step(traffic, ours.frame, both);
  }
  EXPECT_GT(passed, kPackets / 4);
  return true;
}

class TrackerAndKernel : public testing::TestWithParam<bool> {};

TEST_P(TrackerAndKernel, ForwardAlike) {
  bool was_made = true;
  std::thread([&] {
    for (unsigned seed = 1; was_made && seed <= 4; ++seed) was_made = compare(seed, GetParam());
  }).join();
  if (!was_made && geteuid() != 0) GTEST_SKIP() << "not root";
  EXPECT_TRUE(was_made);
}

INSTANTIATE_TEST_SUITE_P(, TrackerAndKernel, testing::Bool(), [](const auto& each) {
  return each.param ? "PickingUp" : "FromTheirStart";
});

}  // namespace
}  // namespace godwit::net
