// The kernel's forwarding as the reference: random packets through both routers come out alike, are
// answered alike, or not at all. In a network namespace of the test's own; needs root, or is
// skipped.
//
//   10.7.0.0/16 ── p0 [ router ] p1 (MTU 1280) 192.0.2.1 ── everything else
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

#include "net/net_testing.hh"
#include "net/router.hh"

namespace godwit::net {
namespace {

constexpr int kPackets = 2000;
constexpr int kMostWaits = 50;  // milliseconds
constexpr std::array<Mac, 2> kMacs = {0x0200000000b0, 0x0200000000b1};
constexpr Mac kHost = 0x02000000000a;
constexpr std::size_t kCompared = 40;  // bytes that an ICMP error quotes

constexpr const char* kScript = R"(
set -e
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv4.icmp_msgs_per_sec=1000000 net.ipv4.icmp_msgs_burst=1000000
sysctl -qw net.ipv6.icmp.ratelimit=0
for c in all default p0 p1; do
  sysctl -qw net.ipv4.conf.$c.rp_filter=0 net.ipv4.conf.$c.send_redirects=0
  sysctl -qw net.ipv6.conf.$c.accept_dad=0 || true
done 2>/dev/null
ip link set p0 address 02:00:00:00:00:b0 up
ip link set p1 address 02:00:00:00:00:b1 mtu 1280 up
ip addr add 10.7.0.1/16 dev p0
ip addr add 192.0.2.1/24 dev p1
ip -6 addr add fd07::1/64 dev p0 nodad
ip -6 addr add 2001:db8::1/64 dev p1 nodad
for i in 2 3; do
  ip neigh add 10.7.0.$i lladdr 02:00:00:00:00:0a dev p0 nud permanent
  ip -6 neigh add fd07::$i lladdr 02:00:00:00:00:0a dev p0 nud permanent
done
ip neigh add 192.0.2.254 lladdr 02:00:00:00:00:0a dev p1 nud permanent
ip -6 neigh add 2001:db8::fe lladdr 02:00:00:00:00:0a dev p1 nud permanent
ip route add 198.51.100.0/24 via 192.0.2.254
ip -6 route add 2001:db8:1::/48 via 2001:db8::fe
)";

Ip ip(const char* text) { return parse_ip(text).value(); }
IpPrefix prefix(const char* text) { return parse_ip_prefix(text).value(); }

RouterConfig as_the_script_says() {
  RouterConfig config;
  config.ports[0] = {.mac = kMacs[0], .addresses = {prefix("10.7.0.1/16"), prefix("fd07::1/64")}};
  config.ports[1] = {.mac = kMacs[1],
                     .addresses = {prefix("192.0.2.1/24"), prefix("2001:db8::1/64")},
                     .mtu = 1280};
  config.routes = {{.to = prefix("198.51.100.0/24"), .via = ip("192.0.2.254")},
                   {.to = prefix("2001:db8:1::/48"), .via = ip("2001:db8::fe")}};
  return config;
}

// All that both must agree on.
struct Seen {
  PortIndex port = 0;
  Ip source{}, destination{};
  int protocol = 0, hops = 0, fragment = 0;
  bool has_more = false;
  std::string layer4{};
  bool operator==(const Seen&) const = default;
  friend void PrintTo(const Seen& seen, std::ostream* out) {
    *out << "port " << seen.port << ", " << seen.source.text() << " -> " << seen.destination.text()
         << ", protocol " << seen.protocol << ", hops " << seen.hops << ", at " << seen.fragment
         << ": " << seen.layer4;
  }
};

bool is_error(const IpPacket& packet, BytesView frame) {
  const auto type = std::to_integer<int>(frame[packet.l4]);
  return packet.protocol == (packet.is_ip4 ? kIcmp : kIcmp6) && packet.fragment_offset == 0 &&
         (packet.is_ip4 ? type == 3 || type == 11 : type < 128);
}

std::optional<Seen> seen(PortIndex port, BytesView frame) {
  const auto packet = read_ip_frame(frame);
  if (!packet || packet->destination.is_multicast()) return std::nullopt;
  Seen what{.port = port,
            .source = packet->source,
            .destination = packet->destination,
            .protocol = packet->protocol,
            .hops = packet->hops,
            .fragment = packet->fragment_offset,
            .has_more = packet->has_more};
  const BytesView layer4 = frame.subspan(packet->l4, packet->end - packet->l4);
  // How much is quoted may differ, and with it the checksum.
  what.layer4 = is_error(*packet, frame)
                    ? to_hex(layer4.first(2)) +
                          to_hex(layer4.subspan(4, std::min(kCompared, layer4.size() - 4)))
                    : to_hex(layer4);
  return what;
}

class KernelRouter final {
 public:
  // False: there is none here.
  bool make() {
    for (const char* name : {"p0", "p1"}) {
      const int tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
      ifreq request{};
      fmt::format_to_n(request.ifr_name, IFNAMSIZ, "{}", name);
      request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
      if (ioctl(tap, TUNSETIFF, &request) != 0) return false;
      taps_.push_back(tap);
    }
    return std::system(fmt::format("( {} ) 2>/dev/null", kScript).c_str()) == 0;
  }
  ~KernelRouter() {
    for (const int tap : taps_) close(tap);
  }
  // What comes out; waits for as many as there should be.
  std::vector<Seen> cross(PortIndex from, const Bytes& frame, std::size_t expected) {
    EXPECT_EQ(write(taps_[from], frame.data(), frame.size()), ssize_t(frame.size()));
    std::vector<Seen> all;
    read_all(all);
    for (int waits = 0; all.size() < expected && waits < kMostWaits; ++waits) {
      std::vector<pollfd> polled;
      for (const int tap : taps_) polled.push_back({.fd = tap, .events = POLLIN, .revents = 0});
      poll(polled.data(), polled.size(), 1);
      read_all(all);
    }
    return all;
  }

 private:
  void read_all(std::vector<Seen>& all) {
    Bytes got(wire::kMaxFrameBytes);
    for (PortIndex port = 0; port < taps_.size(); ++port) {
      for (ssize_t size = 0; (size = read(taps_[port], got.data(), got.size())) > 0;) {
        if (mac_at(&got[kMacsAt]) != kHost) continue;  // of the kernel's own
        const BytesView frame = BytesView(got).first(static_cast<std::size_t>(size));
        if (auto out = seen(port, frame)) all.push_back(*std::move(out));
      }
    }
  }
  std::vector<int> taps_;
};

// Ours, with the same neighbours.
struct OurRouter {
  Router router{as_the_script_says(), 7};

  OurRouter() {
    for (const auto& [port, address, own] : {std::tuple(0, "10.7.0.2", "10.7.0.1"),
                                             {0, "10.7.0.3", "10.7.0.1"},
                                             {1, "192.0.2.254", "192.0.2.1"}}) {
      Bytes frame;
      write_arp({.sender_mac = kHost, .sender = ip(address), .target = ip(own)}, kBroadcast, kHost,
                frame);
      say(port, frame);
    }
    for (const auto& [port, address, own] : {std::tuple(0, "fd07::2", "fd07::1"),
                                             {0, "fd07::3", "fd07::1"},
                                             {1, "2001:db8::fe", "2001:db8::1"}}) {
      Bytes frame;
      write_solicitation({.source_mac = kHost,
                          .destination_mac = mac_of_group(solicited_group_of(ip(own))),
                          .source = ip(address),
                          .destination = solicited_group_of(ip(own))},
                         ip(own), frame);
      say(port, frame);
    }
  }
  void say(int port, const Bytes& frame) {
    Received out;
    give(router, static_cast<PortIndex>(port), frame, Instant{}, out);
  }
  std::vector<Seen> cross(PortIndex from, const Bytes& frame, Instant now) {
    Received out;
    give(router, from, frame, now, out);
    std::vector<Seen> all;
    for (const auto& [port, frames] : out.frames) {
      for (const Bytes& each : frames) {
        if (mac_at(&each[kMacsAt]) != kHost) continue;  // questions
        if (auto one = seen(port, each)) all.push_back(*std::move(one));
      }
    }
    return all;
  }
};

struct Traffic {
  wire::testing::Random random;

  template <class Value>
  Value one_of(std::initializer_list<Value> all) {
    return all.begin()[random() % all.size()];
  }
  // Among neighbours, what is behind them, the router itself, and nobody.
  std::pair<Bytes, PortIndex> packet() {
    const bool is_ip4 = random() % 2 == 0;
    const auto from = static_cast<PortIndex>(random() % 2);
    const Ip inside =
        ip(is_ip4 ? one_of({"10.7.0.2", "10.7.0.3"}) : one_of({"fd07::2", "fd07::3"}));
    const Ip outside = ip(is_ip4 ? one_of({"192.0.2.254", "198.51.100.9"})
                                 : one_of({"2001:db8::fe", "2001:db8:1::9"}));
    const Ip self =
        ip(is_ip4 ? one_of({"10.7.0.1", "192.0.2.1"}) : one_of({"fd07::1", "2001:db8::1"}));
    // How often the kernel says so of IPv4 cannot be set in a namespace.
    const Ip nobody = is_ip4 ? self : ip("2001:db9::9");
    IpEnds ends{.source_mac = kHost,
                .destination_mac = kMacs[from],
                .source = from == 0 ? inside : outside,
                .destination = one_of(
                    {from == 0 ? outside : inside, from == 0 ? outside : inside, self, nobody}),
                .hops = one_of<std::uint8_t>({1, 2, 64})};
    // An answer is as long as what it answers: who sends more than its link takes gets none.
    return {made(ends, ends.destination == self ? 1224 : 3000), from};
  }
  Bytes made(const IpEnds& ends, std::size_t most) {
    Bytes payload(
        std::min(most, one_of({0UL, 7UL, 100UL, 1224UL, 1232UL, 1253UL, 1400UL, 3000UL})));
    for (std::byte& byte : payload) byte = static_cast<std::byte>(random());
    Bytes frame;
    switch (random() % 3) {
      case 0:
        write_udp(ends, 4000, 53, payload, frame);
        break;
      case 1:
        echo(ends, payload, frame);
        break;
      default:
        syn(ends, frame);
    }
    if (ends.source.is4()) finish_ip4(frame);
    return frame;
  }
  static void echo(const IpEnds& ends, BytesView payload, Bytes& frame) {
    const bool is_ip4 = ends.source.is4();
    const std::uint8_t protocol = is_ip4 ? kIcmp : kIcmp6;
    write_ip(ends, protocol, 8 + payload.size(), frame);
    const std::size_t l4 = frame.size();
    Writer(frame).u8(is_ip4 ? 8 : 128).u8(0).u16(0).u32(0x00070001).bytes(payload);
    const std::uint64_t pseudo =
        is_ip4 ? 0 : pseudo_sum(ends.source, ends.destination, protocol, 8 + payload.size());
    to_big_endian(checksum_of(BytesView(frame).subspan(l4), pseudo), &frame[l4 + 2]);
  }
  void syn(const IpEnds& ends, Bytes& frame) {
    write_ip(ends, kTcp, kTcpBytes, frame);
    const std::size_t l4 = frame.size();
    Writer(frame).u16(4000).u16(81).u32(static_cast<std::uint32_t>(random())).u32(0);
    Writer(frame).u16(0x5002).u16(1000).u32(0);
    const std::uint64_t pseudo = pseudo_sum(ends.source, ends.destination, kTcp, kTcpBytes);
    to_big_endian(checksum_of(BytesView(frame).subspan(l4), pseudo), &frame[l4 + 16]);
  }
  // With an identification, and perhaps not to be cut.
  void finish_ip4(Bytes& frame) {
    const MutableBytes header = MutableBytes(frame).subspan(kPayloadAt, kIp4Bytes);
    to_big_endian(static_cast<std::uint16_t>(random()), &header[4]);
    if (random() % 2 == 0) header[6] = std::byte{0x40};
    to_big_endian(std::uint16_t{0}, &header[10]);
    to_big_endian(checksum_of(header), &header[10]);
  }
};

// False: there is no such router here.
bool compare(unsigned seed) {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  CPU_SET(sched_getcpu(), &cpus);
  if (unshare(CLONE_NEWNET) != 0 || sched_setaffinity(0, sizeof cpus, &cpus) != 0) return false;
  KernelRouter kernel;
  if (!kernel.make()) return false;
  OurRouter ours;
  Traffic traffic{.random = wire::testing::Random(seed)};
  std::size_t passed = 0;
  for (int i = 0; i < kPackets && !testing::Test::HasFailure(); ++i) {
    const auto [frame, from] = traffic.packet();
    const auto expected = ours.cross(from, frame, Instant{} + milliseconds(10) * i);
    const auto got = kernel.cross(from, frame, expected.size());
    EXPECT_EQ(expected, got) << "seed " << seed
                             << ", came: " << testing::PrintToString(seen(from, frame));
    passed += expected.size();
  }
  EXPECT_GT(passed, std::size_t{kPackets} / 2);
  return true;
}

TEST(RouterAndKernel, ForwardAlike) {
  bool was_made = true;
  std::thread([&] {
    for (unsigned seed = 1; was_made && seed <= 3; ++seed) was_made = compare(seed);
  }).join();
  if (!was_made && geteuid() != 0) GTEST_SKIP() << "not root";
  EXPECT_TRUE(was_made);
}

}  // namespace
}  // namespace godwit::net
