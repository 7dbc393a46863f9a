// Flows, told to another instance while packets pass: it has the same in the end, to the
// nanosecond, and does the same with what comes then.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "net/arp.hh"
#include "net/firewall.hh"
#include "net/flow_codec.hh"
#include "net/router.hh"
#include "net/state_testing.hh"
#include "net/tracker_traffic.hh"

namespace godwit::net {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Key;

// In an order of their own.
std::vector<std::string> flows_of(const Tracker& tracker, Instant now) {
  std::vector<std::string> all;
  for (const FlowReport& each : tracker.flows(now)) {
    Bytes bytes;
    Writer writer(bytes);
    write_flow(writer, each.flow, now);
    all.push_back(each.flow.tuples[0].text() + ": " + to_hex(bytes));
  }
  std::ranges::sort(all);
  return all;
}

// ---- one flow ----

Flow some_flow(wire::testing::Random& random) {
  const auto some = [&](std::uint64_t most) { return random() % most; };
  const auto some_ip = [&](bool is_ip4) {
    return is_ip4 ? Ip::of4(static_cast<std::uint32_t>(random())) : Ip{random() | 1, random()};
  };
  const bool is_ip4 = some(2) == 0;
  Flow flow;
  Tuple& tuple = flow.tuples[0];
  tuple = {.source = some_ip(is_ip4), .destination = some_ip(is_ip4)};
  tuple.source_port = static_cast<std::uint16_t>(random());
  tuple.destination_port = static_cast<std::uint16_t>(random());
  tuple.zone = static_cast<std::uint16_t>(some(4096));
  constexpr std::uint8_t kProtocols[] = {kUdp, kTcp, kIcmp, 47};
  tuple.protocol = kProtocols[some(4)];
  flow.tuples[1] = tuple.inverse();
  if (some(2) == 0) flow.tuples[1].destination = some_ip(is_ip4);
  flow.is_translated = flow.tuples[1] != tuple.inverse();
  flow.began = Instant{} - Nanoseconds(some(std::uint64_t{1} << 60));
  flow.ends = Instant{} + Nanoseconds(1 + some(std::uint64_t{1} << 60));
  for (FlowCounters& sent : flow.sent) sent = {random(), random()};
  flow.in = static_cast<PortIndex>(some(kMostPorts));
  flow.out = some(2) == 0 ? kItself : static_cast<PortIndex>(some(kMostPorts));
  flow.is_replied = some(2) == 0;
  if (tuple.protocol != kTcp) {
    flow.state = static_cast<FlowState>(some(3));
    return flow;
  }
  flow.state = static_cast<FlowState>(3 + some(6));
  for (TcpSide* side : {&flow.tcp[0], &flow.tcp[1], &flow.retry}) {
    if (some(3) == 0) continue;
    *side = {static_cast<std::uint32_t>(random()), static_cast<std::uint32_t>(random()),
             static_cast<std::uint32_t>(random()), static_cast<std::uint8_t>(some(15))};
    side->has_sent = some(2) == 0, side->has_acknowledged = some(2) == 0;
    side->has_scale = some(2) == 0, side->has_ended = some(2) == 0;
  }
  return flow;
}

TEST(FlowCodec, GivesWhatItWasGiven) {
  wire::testing::Random random(1);
  for (int i = 0; i < 2000; ++i) {
    const Flow flow = some_flow(random);
    Bytes bytes;
    Writer writer(bytes);
    write_flow(writer, flow, Instant{});
    Reader reader(bytes);
    const auto read = read_flow(reader, Instant{});
    ASSERT_TRUE(read && reader.finished());
    ASSERT_EQ(*read, flow);
  }
}

TEST(FlowCodec, TwoFlowsToTheByte) {
  const Instant now = Instant{} + seconds(100);
  Flow flow{.tuples = {Tuple{.source = ip("10.7.0.2"),
                             .destination = ip("198.51.100.9"),
                             .source_port = 4000,
                             .destination_port = 53,
                             .zone = 10,
                             .protocol = kUdp},
                       {}},
            .began = now - milliseconds(1500),
            .ends = now + seconds(30),
            .sent = {FlowCounters{2, 120}, FlowCounters{1, 300}},
            .in = 0,
            .out = 1,
            .state = FlowState::replied,
            .is_replied = true};
  flow.tuples[1] = flow.tuples[0].inverse();
  const auto hex_of = [now](const Flow& each) {
    Bytes bytes;
    Writer writer(bytes);
    write_flow(writer, each, now);
    return to_hex(bytes);
  };
  EXPECT_EQ(
      hex_of(flow),
      hex("05 11 000a 0a070002 c6336409 0fa0 0035 01 0000 0001 0000000059682f00 00000006fc23ac00 "
          "0000000000000002 0000000000000078 0000000000000001 000000000000012c"));
  flow.tuples[0].protocol = kTcp, flow.tuples[0].zone = 0;
  flow.tuples[1] = flow.tuples[0].inverse();
  flow.tuples[1].destination = ip("192.0.2.1"), flow.tuples[1].destination_port = 40000;
  flow.is_translated = true;
  flow.state = FlowState::established;
  flow.tcp = {TcpSide{0x1001, 0x2001, 0xfa00, 7, true, true, true, false},
              TcpSide{0x2001, 0x1001, 0xfa00, 0, true, true, true, false}};
  EXPECT_EQ(
      hex_of(flow),
      hex("07 06 0000 0a070002 c6336409 0fa0 0035 c6336409 c0000201 0035 9c40 05 0000 0001 "
          "0000000059682f00 00000006fc23ac00 0000000000000002 0000000000000078 0000000000000001 "
          "000000000000012c 00001001 00002001 0000fa00 07 07 00002001 00001001 0000fa00 00 07"));
}

TEST(FlowCodec, WhatCannotBeIsRefused) {
  wire::testing::Random random(1);
  Flow good = some_flow(random);
  while (good.tuples[0].protocol != kTcp || good.is_translated) good = some_flow(random);
  const auto is_read = [](const Flow& flow) {
    Bytes bytes;
    Writer writer(bytes);
    write_flow(writer, flow, Instant{});
    Reader reader(bytes);
    return read_flow(reader, Instant{}).has_value();
  };
  EXPECT_TRUE(is_read(good));
  const auto refused = [&](auto change) {
    Flow flow = good;
    change(flow);
    return !is_read(flow);
  };
  EXPECT_TRUE(refused([](Flow& flow) { flow.in = kMostPorts; }));
  EXPECT_TRUE(refused([](Flow& flow) { flow.state = FlowState::replied; }));
  EXPECT_TRUE(refused([](Flow& flow) { flow.state = static_cast<FlowState>(9); }));
  EXPECT_TRUE(refused([](Flow& flow) { flow.tcp[1].scale = 15; }));
  EXPECT_TRUE(refused([](Flow& flow) { flow.tuples[0].protocol = kUdp; }));
  EXPECT_TRUE(refused([](Flow& flow) {
    flow.is_translated = true;
    flow.tuples[1] = flow.tuples[0];
  })) << "both ways alike";
  EXPECT_TRUE(refused([](Flow& flow) {
    flow.is_translated = true;
    Ip& to = flow.tuples[1].destination;
    to = to.is4() ? ip("fd07::2") : ip("10.7.0.2");
  })) << "of another family";
}

// ---- a tracker's ----

Bytes take(Tracker& from, std::size_t most, Instant now) {
  StateWriter state(most);
  from.take_state(state, now);
  return state.take();
}
Result<> give(Tracker& to, BytesView message, Instant now) {
  return load_sections(message, [&](const auto& section) { return to.load_state(section, now); });
}
void give_rest(Tracker& from, Tracker& to, Instant now) {
  while (true) {
    const Bytes message = take(from, kMost, now);
    if (message.empty()) return;
    const auto done = give(to, message, now);
    ASSERT_TRUE(done) << done.error().text;
  }
}

TrackerConfig some_rules(std::size_t most_flows) {
  const std::vector<FilterRule> rules{
      {.action = Action::drop, .in = {kInside}, .protocol = kTcp, .destination_ports = {{82, 82}}},
      {.in = {kInside}},
      {.to = {prefix("10.7.0.9")}, .protocol = kTcp, .destination_ports = {{80, 81}}},
      {.to = {prefix("10.7.0.0/29")}, .protocol = kUdp, .destination_ports = {{80, 81}}},
      {.protocol = kIcmp6, .icmp_types = {128}}};
  return {.filter = {.rules = rules, .otherwise = Action::drop},
          .nat = {.masquerade = {{.out = {kOutside}, .from = {prefix("10.7.0.0/16")}}},
                  .forward = {{.address = ip("192.0.2.1"),
                               .protocol = kTcp,
                               .ports = {8000, 8000},
                               .to = ip("10.7.0.9"),
                               .to_port = 80}},
                  .one_to_one = {{.out = {kOutside},
                                  .outside = prefix("203.0.113.4"),
                                  .inside = prefix("10.7.0.4")}}},
          .most_flows = most_flows};
}

struct Crossed {
  Bytes frame{};
  std::string cause{};
  bool operator==(const Crossed&) const = default;
};
Crossed cross(Tracker& tracker, PortIndex from, Bytes frame, Instant now) {
  auto packet = read_ip_frame(frame).value();
  Ticket ticket;
  auto cause = tracker.arrive(frame, packet, from, now, ticket);
  if (!cause.empty()) return {{}, std::string(cause)};
  const PortIndex out = TrackerTest::port_of(packet.destination);
  cause = tracker.leave(frame, packet, ticket, out, TrackerTest::own(out, packet.is_ip4), now);
  return cause.empty() ? Crossed{frame, {}} : Crossed{{}, std::string(cause)};
}

struct TrackerState : testing::TestWithParam<unsigned> {
  // Through the one, or through both alike.
  void run(int packets, bool both) {
    Bytes came_out;
    for (int i = 0; i < packets && !HasFailure(); ++i) {
      now += Nanoseconds(traffic.upto(100'000'000));
      if (traffic.upto(100) == 0) now += seconds(20);
      if (traffic.upto(20) == 0) from.tick(now);
      step(traffic, came_out, [&](const Bytes& frame, PortIndex port) {
        const Crossed here = cross(from, port, frame, now);
        if (both) {
          EXPECT_EQ(cross(to, port, frame, now), here);
        }
        came_out = here.frame;
        return here.cause.empty() &&
               TrackerTest::port_of(read_ip_frame(came_out)->destination) != kItself;
      });
    }
  }

  Instant now = Instant{} + seconds(1000);
  Traffic traffic{.random = wire::testing::Random(GetParam())};
  Tracker from{some_rules(GetParam() % 2 == 0 ? 1000 : 24), 1};
  Tracker to{some_rules(GetParam() % 2 == 0 ? 1000 : 24), 2};
};

TEST_P(TrackerState, IsTheSameThere) {
  run(2000, false);
  from.begin_state();
  give_rest(from, to, now);
  EXPECT_EQ(flows_of(to, now), flows_of(from, now));
  EXPECT_GT(flows_of(to, now).size(), 10u);
  Tracker third(some_rules(1000), 3);
  to.begin_state();
  give_rest(to, third, now);
  EXPECT_EQ(flows_of(third, now), flows_of(from, now));
}

TEST_P(TrackerState, IsFollowedWhilePacketsPass) {
  run(300, false);
  from.begin_state();
  for (int round = 0; round < 60; ++round) {
    const Bytes some = take(from, traffic.upto(4) * 300, now);
    if (!some.empty()) {
      EXPECT_TRUE(give(to, some, now));
    }
    run(static_cast<int>(traffic.upto(50)), false);
    if (round % 10 == 9) {
      give_rest(from, to, now);
      ASSERT_EQ(flows_of(to, now), flows_of(from, now)) << "round " << round;
    }
  }
  give_rest(from, to, now);
  from.end_state();
  EXPECT_EQ(flows_of(to, now), flows_of(from, now));
  EXPECT_THAT(take(from, kMost, now), IsEmpty());
  if (GetParam() % 2 != 0) return;  // which one makes room may be another
  run(1000, true);
}

INSTANTIATE_TEST_SUITE_P(Seeds, TrackerState, testing::Range(0u, 12u));

struct TrackerStateOf : TrackerTest {
  void SetUp() override {
    start({});
    there = std::make_unique<Tracker>(TrackerConfig{}, 2);
    tracker->begin_state();
  }
  // Bytes of what there is to tell.
  std::size_t told() { return take(*tracker, kMost, now).size(); }

  std::unique_ptr<Tracker> there;
};

TEST_F(TrackerStateOf, WhatIsToldIsWhatChanged) {
  constexpr std::size_t kHead = 1 + 8, kRow = 69;
  cross(udp);
  PacketSpec other = udp;
  other.source_port = 4001;
  cross(other);
  EXPECT_EQ(tracker->untold(), 2u);
  EXPECT_EQ(told(), kHead + 2 * kRow);
  EXPECT_EQ(told(), 0u);
  cross(other), cross(other);
  EXPECT_EQ(told(), kHead + kRow);
  other.source_port = 4002;
  cross(other);
  now += seconds(31);
  tracker->tick(now);
  EXPECT_GE(tracker->untold(), 2u);
  EXPECT_EQ(told(), kHead + 2 * 16) << "two are gone; of the third nobody was told";
  EXPECT_EQ(tracker->untold(), 0u);
}

TEST_F(TrackerStateOf, WhatEndedAndBeganAnewIsThereAnew) {
  cross(udp);
  give_rest(*tracker, *there, now);
  now += seconds(31);
  PacketSpec same = udp;
  same.payload = "another";
  cross(same);
  give_rest(*tracker, *there, now);
  ASSERT_EQ(there->flows(now).size(), 1u);
  EXPECT_EQ(there->flows(now)[0].flow.sent[0].packets, 1u);
  EXPECT_EQ(flows_of(*there, now), flows_of(*tracker, now));
}

TEST_F(TrackerStateOf, WhatHasEndedIsTakenBack) {
  connect(tcp);
  give_rest(*tracker, *there, now);
  PacketSpec reset = tcp;
  reset.flags = kRst, reset.sequence = 1001;
  EXPECT_EQ(cause_of(reset), "");
  now += seconds(11);
  EXPECT_EQ(there->flows(now).size(), 1u);
  give_rest(*tracker, *there, now);
  EXPECT_THAT(there->flows(now), IsEmpty());
}

TEST_F(TrackerStateOf, AnothersTupleIsRefused) {
  cross(udp);
  const Bytes message = take(*tracker, kMost, now);
  Tracker translating({.nat = {.masquerade = {{.out = {kOutside}}}}}, 3);
  net::cross(translating, kInside, packet_of(udp), now);
  const auto done = give(translating, message, now);
  ASSERT_FALSE(done);
  EXPECT_THAT(done.error().text, HasSubstr("section 7 is damaged"));
  EXPECT_EQ(translating.flows(now).size(), 1u);
}

TEST_F(TrackerStateOf, NoMoreIsTakenThanThereIsRoomFor) {
  for (std::uint16_t port = 0; port < 100; ++port) {
    PacketSpec spec = udp;
    spec.source_port = port;
    cross(spec);
  }
  Tracker small({.most_flows = 8}, 3);
  give_rest(*tracker, small, now);
  EXPECT_EQ(small.flows(now).size(), 8u);
}

// ---- components ----

TEST(FirewallState, AnEstablishedFlowGoesOnThere) {
  const FirewallConfig one_way{.filter = {.rules = {{.in = {0}}}, .otherwise = Action::drop}};
  Firewall from(one_way, 1), to(one_way, 2);
  const PacketSpec asks{.source = ip("10.7.0.2"),
                        .destination = ip("198.51.100.9"),
                        .source_port = 4000,
                        .destination_port = 53};
  const Bytes answer = packet_of(TrackerTest::answer_to(asks));
  const Instant now = Instant{} + seconds(100), there = Instant{} + seconds(3);
  Received out;
  give(from, 0, packet_of(asks), now, out);
  give(to, 1, answer, there, out);
  EXPECT_THAT(out.frames, ElementsAre(Key(1))) << "nothing is known of it";
  load(to, all_of(from, now), there);
  give(to, 1, answer, there, out);
  EXPECT_THAT(out.frames[0], ElementsAre(answer));
  EXPECT_FALSE(to.load_state(from_hex(hex("01 0002 0100 00000000")), there)) << "a switch's";
}

struct RouterState : testing::Test {
  static constexpr Mac kMac = 0x020000000001, kPeer = 0x0200000000b1, kHostA = 0x0200000000a2;
  static RouterConfig config() {
    RouterConfig made;
    made.ports[kOutside] = {.mac = kMac, .addresses = {prefix("192.0.2.1/24")}};
    made.ports[kInside] = {.mac = kMac + 1, .addresses = {prefix("10.7.0.1/16")}};
    made.routes = {{.to = prefix("0.0.0.0/0"), .via = ip("192.0.2.254")}};
    made.tracker = TrackerConfig{.nat = {.masquerade = {{.out = {kOutside}}}}};
    return made;
  }
  void know(PortIndex port, const char* address, Mac mac) {
    Bytes said;
    const Ip own = config().ports[port].addresses[0].address;
    write_arp({.sender_mac = mac, .sender = ip(address), .target = own}, kBroadcast, mac, said);
    Received out;
    give(from, port, said, now, out);
  }
  // From whom it seems to come; by the router with that MAC.
  Endpoint sent(Router& router, const PacketSpec& spec) {
    Bytes frame = packet_of(spec);
    write_macs(frame, kHostA, kMac + 1);
    Received out;
    give(router, kInside, frame, now, out);
    EXPECT_EQ(out.frames[kOutside].size(), 1u);
    if (out.frames[kOutside].empty()) return {};
    last = out.frames[kOutside][0];
    EXPECT_EQ(mac_at(&last[kMacsAt]), kPeer);
    const auto packet = read_ip_frame(last).value();
    return {packet.source, from_big_endian<std::uint16_t>(&last[packet.l4])};
  }
  // To whom it gets, at the inside.
  Endpoint answered(Router& router, const PacketSpec& spec, Endpoint outside) {
    PacketSpec back = TrackerTest::answer_to(spec, kSyn | kAck);
    back.destination = outside.ip, back.destination_port = outside.port;
    back.sequence = 5000, back.acknowledged = spec.sequence + 1;
    back.payload.clear();
    Bytes frame = packet_of(back);
    write_macs(frame, kPeer, kMac);
    Received out;
    give(router, kOutside, frame, now, out);
    if (out.frames[kInside].empty()) return {};
    const auto packet = read_ip_frame(out.frames[kInside][0]).value();
    return {packet.destination,
            from_big_endian<std::uint16_t>(&out.frames[kInside][0][packet.l4 + 2])};
  }

  Instant now = Instant{} + seconds(100);
  Router from{config(), 1}, to{config(), 2};
  Bytes last;
  PacketSpec a{.source = ip("10.7.0.2"),
               .destination = ip("198.51.100.9"),
               .protocol = kTcp,
               .source_port = 4000,
               .destination_port = 80,
               .payload = ""};
};

TEST_F(RouterState, ATranslatedConnectionGoesOnThere) {
  know(kOutside, "192.0.2.254", kPeer), know(kInside, "10.7.0.2", kHostA);
  const Endpoint outside = sent(from, a);
  EXPECT_EQ(answered(to, a, outside), Endpoint{}) << "nothing is known of it";
  load(to, all_of(from, now), now);
  EXPECT_EQ(answered(to, a, outside), (Endpoint{a.source, 4000}));
  EXPECT_EQ(answered(from, a, outside), (Endpoint{a.source, 4000}));
  EXPECT_EQ(flows_of(*to.tracker(), now), flows_of(*from.tracker(), now));
}

// RFC 4787, REQ-1: also where its port is taken by another, and it has one by a hash.
TEST_F(RouterState, AnInsideEndpointKeepsItsOutsidePort) {
  know(kOutside, "192.0.2.254", kPeer);
  PacketSpec b = a;
  b.source = ip("10.7.0.3");
  EXPECT_EQ(sent(from, a).port, 4000);
  const Endpoint outside = sent(from, b);
  EXPECT_NE(outside.port, 4000);
  load(to, all_of(from, now), now);
  for (const char* other : {"203.0.113.1", "203.0.113.2", "198.51.100.10"}) {
    a.destination = b.destination = ip(other);
    EXPECT_EQ(sent(to, b), outside) << other;
    EXPECT_EQ(sent(to, a).port, 4000) << other;
  }
}

// RFC 4787, REQ-2: of several addresses outside, one host has one.
TEST_F(RouterState, AnInsideAddressKeepsItsOutsideAddress) {
  RouterConfig pool = config();
  pool.tracker->nat.masquerade = {
      {.out = {kOutside}, .to = IpRange{ip("203.0.113.0"), ip("203.0.113.255")}}};
  from.configure(pool), to.configure(pool);
  know(kOutside, "192.0.2.254", kPeer);
  const Endpoint outside = sent(from, a);
  load(to, all_of(from, now), now);
  a.source_port = 4001, a.destination = ip("198.51.100.10");
  EXPECT_EQ(sent(to, a).ip, outside.ip);
}

TEST_F(RouterState, WithoutRulesFlowsArePassedOver) {
  know(kOutside, "192.0.2.254", kPeer);
  sent(from, a);
  RouterConfig plain = config();
  plain.tracker->nat = {};
  to.configure(plain);
  load(to, all_of(from, now), now);
  EXPECT_EQ(to.tracker()->flows(now).size(), 1u) << "translated as it was";
  plain.tracker.reset();
  Router other(plain, 2);
  load(other, all_of(from, now), now);
  EXPECT_EQ(sent(other, a), (Endpoint{a.source, 4000}));
}

TEST_F(RouterState, RulesThatComeLaterTellTheirFlows) {
  know(kOutside, "192.0.2.254", kPeer);
  RouterConfig plain = config();
  plain.tracker.reset();
  from.configure(plain);
  from.begin_state();
  load(to, rest_of(from, now), now);
  from.configure(config());
  sent(from, a);
  load(to, rest_of(from, now), now);
  EXPECT_EQ(flows_of(*to.tracker(), now), flows_of(*from.tracker(), now));
}

}  // namespace
}  // namespace godwit::net
