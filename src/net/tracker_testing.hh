#pragma once
// IP packets for the tests of the tracker, of the firewall and of those who use them; and a judge
// of their checksums that shares nothing with the code under test.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "net/net_testing.hh"
#include "net/packet.hh"
#include "net/tracker.hh"

namespace godwit::net {

inline Ip ip(std::string_view text) { return parse_ip(text).value(); }
inline IpPrefix prefix(std::string_view text) { return parse_ip_prefix(text).value(); }

struct PacketSpec {
  Ip source{}, destination{};
  std::uint8_t protocol = kUdp;                         // kIcmp: ICMPv6 between IPv6 addresses
  std::uint16_t source_port = 0, destination_port = 0;  // of ICMP: the id is the first
  std::uint8_t flags = kSyn;                            // of TCP
  std::uint32_t sequence = 1000, acknowledged = 0;
  std::uint16_t window = 64'000;
  std::uint8_t icmp_type = 8;
  std::string payload = "hello, world";
  std::uint16_t id = 7;
  std::uint8_t hops = 64;
  bool needs_checksum = false;  // the seed is in its place, the rest is left to be done
  bool has_checksum = true;     // of UDP

  bool operator==(const PacketSpec&) const = default;
};
Bytes packet_of(const PacketSpec& spec);

// As the other end sees it, whose network card has finished its checksum.
Bytes arrived(BytesView frame);

// As a host or router would say it about this frame.
Bytes icmp_error(BytesView about, Ip from, std::uint8_t type, std::size_t quoted = 28);
// Of an IPv4 frame; bytes of each, but of the last.
std::vector<Bytes> fragments_of(BytesView frame, std::size_t bytes);
// Put together again.
Bytes whole_of(const std::vector<Bytes>& fragments);

// Empty: all of its checksums are right, and where one is left to be done, what it starts from.
// Those of what an ICMP error quotes, too, unless that is cut off.
std::string fault_of(BytesView frame);

inline constexpr PortIndex kOutside = 0, kInside = 1, kDmz = 2;

// A router with the network 10.7.0.0/16 behind one port, 10.8.0.0/16 behind another, and all else
// outside; of IPv6 fd07::/16, fd08::/16.
struct TrackerTest : testing::Test {
  void start(TrackerConfig config) {
    ASSERT_TRUE(check(config)) << check(config).error().text;
    tracker = std::make_unique<Tracker>(std::move(config), 1);
  }
  static PortIndex port_of(Ip address) {
    if (prefix("10.7.0.0/16").contains(address) || prefix("fd07::/16").contains(address)) {
      return address == ip("10.7.0.1") ? kItself : kInside;
    }
    if (prefix("10.8.0.0/16").contains(address)) return kDmz;
    return address == kOwn4 ? kItself : kOutside;
  }
  static Ip own(PortIndex port, bool is_ip4) {
    if (!is_ip4) return port == kInside ? ip("fd07::1") : ip("2001:db8::1");
    return port == kInside ? ip("10.7.0.1") : port == kDmz ? ip("10.8.0.1") : kOwn4;
  }

  // What comes out; empty: it is dropped, `cause` says why.
  Bytes cross(Bytes frame, std::optional<PortIndex> from = {}) {
    const Bytes before = frame;
    auto packet = read_ip_frame(frame);
    EXPECT_TRUE(packet);
    Ticket ticket;
    const PortIndex in = from.value_or(port_of(packet->source));
    cause = tracker->arrive(frame, *packet, in, now, ticket);
    if (!cause.empty()) {
      EXPECT_EQ(frame, before);
      return {};
    }
    out = port_of(packet->destination);
    cause = tracker->leave(frame, *packet, ticket, out, own(out, packet->is_ip4), now);
    if (!cause.empty()) {
      EXPECT_EQ(frame, before) << "put back";
      return {};
    }
    const auto again = read_ip_frame(frame);
    EXPECT_TRUE(again && again->source == packet->source &&
                again->destination == packet->destination);
    EXPECT_EQ(fault_of(frame), "");
    return frame;
  }
  Bytes cross(const PacketSpec& spec) { return cross(packet_of(spec)); }
  std::string cause_of(const PacketSpec& spec) { return cross(spec), std::string(cause); }

  static PacketSpec answer_to(const PacketSpec& spec, std::uint8_t flags = kAck) {
    PacketSpec back = spec;
    std::swap(back.source, back.destination);
    std::swap(back.source_port, back.destination_port);
    std::swap(back.sequence, back.acknowledged);
    back.flags = flags;
    return back;
  }
  // Through all of the handshake.
  void connect(PacketSpec spec) {
    spec.payload.clear();
    EXPECT_EQ(cause_of(spec), "");
    PacketSpec back = answer_to(spec, kSyn | kAck);
    back.sequence = 5000, back.acknowledged = 1001;
    EXPECT_EQ(cause_of(back), "");
    spec.flags = kAck, spec.sequence = 1001, spec.acknowledged = 5001;
    EXPECT_EQ(cause_of(spec), "");
  }
  FlowState state() {
    const auto flows = tracker->flows(now);
    EXPECT_EQ(flows.size(), 1u);
    return flows.empty() ? FlowState::closed : flows[0].flow.state;
  }

  static inline const Ip kOwn4 = ip("192.0.2.1");
  const PacketSpec udp{.source = ip("10.7.0.2"),
                       .destination = ip("198.51.100.9"),
                       .source_port = 4000,
                       .destination_port = 53};
  const PacketSpec tcp{.source = ip("10.7.0.2"),
                       .destination = ip("198.51.100.9"),
                       .protocol = kTcp,
                       .source_port = 4000,
                       .destination_port = 80};
  std::unique_ptr<Tracker> tracker;
  std::string_view cause;
  PortIndex out = 0;
  Instant now = Instant{} + seconds(1);
};

}  // namespace godwit::net
