// What strangers, and broken ones, could send as a component's state: cut off anywhere, with any
// bit another, it is an error or harmless; and what was loaded is still bounded and works.
#include <gtest/gtest.h>

#include <functional>

#include "net/arp.hh"
#include "net/dhcp_testing.hh"
#include "net/firewall.hh"
#include "net/router.hh"
#include "net/state_testing.hh"
#include "net/switch.hh"
#include "net/tracker_testing.hh"

namespace godwit::net {
namespace {

constexpr Mac kMac = 0x020000000001, kHost = 0x0200000000a2;
const Instant kNow = Instant{} + seconds(100);

using Made = std::unique_ptr<Component>;
using Frames = std::vector<std::pair<PortIndex, Bytes>>;
struct Case {
  const char* name;
  std::function<Made()> make;
  std::function<Frames()> frames;  // from which it learns
};

std::vector<PacketSpec> some_packets() {
  PacketSpec tcp{.source = ip("10.7.0.2"),
                 .destination = ip("198.51.100.9"),
                 .protocol = kTcp,
                 .source_port = 4000,
                 .destination_port = 80,
                 .payload = ""};
  PacketSpec udp = tcp, six = tcp;
  udp.protocol = kUdp;
  six.source = ip("fd07::2"), six.destination = ip("2001:db8:9::9");
  PacketSpec answer = TrackerTest::answer_to(tcp, kSyn | kAck);
  answer.acknowledged = 1001;
  PacketSpec again = tcp;
  again.sequence = 77;
  return {tcp, udp, six, answer, again};
}

Frames of_switch() {
  return {{0, frame(kHost, kBroadcast)},
          {1, frame(kHost + 1, kHost, 10)},
          {2, igmp(kHost, 0x01005e000001, "1164ee9b00000000")},
          {1, igmp(kHost, 0x01005e000016, "2200ea030000000104000000ef010203")}};
}
Frames of_firewall() {
  Frames all;
  for (const PacketSpec& spec : some_packets()) {
    const bool is_inside = spec.source == ip("10.7.0.2") || spec.source == ip("fd07::2");
    all.emplace_back(is_inside ? kInside : kOutside, packet_of(spec));
  }
  return all;
}
Frames of_router() {
  Frames all;
  Bytes said;
  write_arp({.sender_mac = kHost, .sender = ip("192.0.2.254"), .target = ip("192.0.2.1")},
            kBroadcast, kHost, said);
  all.emplace_back(kOutside, said);
  for (auto [port, frame] : of_firewall()) {
    write_macs(frame, kHost, kMac + port);
    all.emplace_back(port, frame);
  }
  return all;
}
Frames of_server() {
  return {{0, request_of({.requested = "10.7.0.101"})},
          {0, request_of({.type = DhcpType::request, .mac = kOther, .requested = "10.7.0.50"})}};
}

Made a_switch() {
  SwitchConfig config{.most_macs = 4};
  for (PortIndex i = 0; i < 3; ++i) config.ports[i] = {};
  return std::make_unique<Switch>(config, 1);
}
Made a_firewall() { return std::make_unique<Firewall>(FirewallConfig{.most_flows = 4}, 1); }
Made a_router() {
  RouterConfig config{.most_neighbours = 4};
  config.ports[kOutside] = {.mac = kMac,
                            .addresses = {prefix("192.0.2.1/24"), prefix("2001:db8::1/64")}};
  config.ports[kInside] = {.mac = kMac + 1,
                           .addresses = {prefix("10.7.0.1/16"), prefix("fd07::1/64")}};
  config.routes = {{.to = prefix("0.0.0.0/0"), .via = ip("192.0.2.254")},
                   {.to = prefix("::/0"), .via = ip("2001:db8::2")}};
  config.tracker = {.nat = {.masquerade = {{.out = {kOutside}}}}, .most_flows = 4};
  return std::make_unique<Router>(config, 1);
}
Made a_server() {
  DhcpConfig config{.address = prefix("10.7.0.2/24"), .mac = kServer};
  config.networks = {
      {.prefix = prefix("10.7.0.0/24"), .first = ip("10.7.0.100"), .last = ip("10.7.0.103")}};
  config.reservations = {{.mac = kOther, .address = ip("10.7.0.50")}};
  return std::make_unique<DhcpServer>(config);
}

const Case kCases[] = {{"Switch", a_switch, of_switch},
                       {"Firewall", a_firewall, of_firewall},
                       {"Router", a_router, of_router},
                       {"DhcpServer", a_server, of_server}};

struct HostileState : testing::TestWithParam<Case> {
  void learn(Component& component) {
    Received out;
    for (const auto& [port, frame] : GetParam().frames()) give(component, port, frame, kNow, out);
  }
  // Goes on with what it was told.
  void use(Component& component) {
    learn(component);
    Received out;
    component.tick(kNow + seconds(2), out);
    std::size_t bytes = 0;
    for (const Bytes& each : all_of(component, kNow)) bytes += each.size();
    EXPECT_LT(bytes, 20'000u);
  }
  Bytes message() {
    const Made from = GetParam().make();
    learn(*from);
    const auto all = all_of(*from, kNow);
    EXPECT_EQ(all.size(), 1u);
    return all.at(0);
  }
};

TEST_P(HostileState, CutOffAnywhere) {
  const Bytes whole = message();
  int refused = 0;
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const Made to = GetParam().make();
    if (!to->load_state(BytesView(whole).first(size), kNow)) ++refused;
    use(*to);
  }
  EXPECT_GT(refused, static_cast<int>(whole.size()) - 8) << "but for whole sections";
}

TEST_P(HostileState, AnyBitAnother) {
  const Bytes whole = message();
  for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
    Bytes other = whole;
    other[bit / 8] ^= std::byte{1} << (bit % 8);
    const Made to = GetParam().make();
    (void)to->load_state(other, kNow);
    use(*to);
  }
}

TEST_P(HostileState, OverAndOver) {
  wire::testing::Random random(1);
  const Bytes whole = message();
  const Made to = GetParam().make();
  for (int i = 0; i < 2000; ++i) {
    Bytes other = whole;
    for (int changes = 0; changes < 3; ++changes) {
      other[9 + random() % (whole.size() - 9)] = static_cast<std::byte>(random());
    }
    (void)to->load_state(other, kNow);
  }
  use(*to);
}

TEST_P(HostileState, AnothersSectionsAreRefused) {
  for (const Case& other : kCases) {
    if (other.make == nullptr || std::string_view(other.name) == GetParam().name) continue;
    const Made from = other.make();
    Received out;
    for (const auto& [port, frame] : other.frames()) give(*from, port, frame, kNow, out);
    const bool has_flows_only = std::string_view(other.name) == "Firewall";
    if (has_flows_only && std::string_view(GetParam().name) == "Router") continue;
    for (const Bytes& each : all_of(*from, kNow)) {
      EXPECT_FALSE(GetParam().make()->load_state(each, kNow)) << other.name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, HostileState, testing::ValuesIn(kCases),
                         [](const auto& each) { return each.param.name; });

}  // namespace
}  // namespace godwit::net
