#include "net/tracker.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "net/tracker_testing.hh"

namespace godwit::net {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

TEST_F(TrackerTest, LeavesAloneWhatNoRuleIsAbout) {
  start({});
  EXPECT_EQ(cross(udp), packet_of(udp));
  EXPECT_EQ(cross(answer_to(udp)), packet_of(answer_to(udp)));
  EXPECT_THAT(tracker->flows(now), SizeIs(1));
}

TEST_F(TrackerTest, FollowsTcpThroughItsLife) {
  start({});
  connect(tcp);
  EXPECT_EQ(state(), FlowState::established);
  PacketSpec end = tcp;
  end.payload.clear();
  end.flags = kFin | kAck, end.sequence = 1001, end.acknowledged = 5001;
  EXPECT_EQ(cause_of(end), "");
  EXPECT_EQ(state(), FlowState::closing);
  PacketSpec back = answer_to(end, kFin | kAck);
  back.sequence = 5001, back.acknowledged = 1002;
  EXPECT_EQ(cause_of(back), "");
  EXPECT_EQ(state(), FlowState::closing);
  end.flags = kAck, end.sequence = 1002, end.acknowledged = 5002;
  EXPECT_EQ(cause_of(end), "");
  EXPECT_EQ(state(), FlowState::time_wait);
  EXPECT_EQ(tracker->flows(now)[0].remaining, seconds(120));
  EXPECT_EQ(cause_of(tcp), "") << "a new one between the same";
  EXPECT_EQ(state(), FlowState::syn_sent);
}

TEST_F(TrackerTest, EachStateOfTcpHasItsTime) {
  const auto remaining = [&] { return tracker->flows(now).at(0).remaining; };
  const FlowTimeouts times{.syn_sent = seconds(1),
                           .syn_received = seconds(2),
                           .established = seconds(3),
                           .closing = seconds(4),
                           .time_wait = seconds(5),
                           .closed = seconds(6)};
  start({.timeouts = times});
  PacketSpec client = tcp;
  client.payload.clear();
  PacketSpec server = answer_to(client);
  server.sequence = 5000;
  const auto send = [&](PacketSpec& from, PacketSpec& to, std::uint8_t flags) {
    from.flags = flags;
    EXPECT_EQ(cause_of(from), "");
    from.sequence += (flags & (kSyn | kFin)) != 0 ? 1 : 0;
    to.acknowledged = from.sequence;
    return remaining();
  };
  EXPECT_EQ(send(client, server, kSyn), times.syn_sent);
  EXPECT_EQ(send(server, client, kSyn | kAck), times.syn_received);
  EXPECT_EQ(send(client, server, kAck), times.established);
  EXPECT_EQ(send(server, client, kFin | kAck), times.closing);
  EXPECT_EQ(send(client, server, kAck), times.closing);
  EXPECT_EQ(send(client, server, kFin | kAck), times.closing);
  EXPECT_EQ(send(server, client, kAck), times.time_wait);
  EXPECT_EQ(send(server, client, kRst | kAck), times.closed);
}

TEST_F(TrackerTest, OnlyAPlausibleResetEndsAFlow) {
  start({});
  connect(tcp);
  PacketSpec reset = tcp;
  reset.payload.clear();
  reset.flags = kRst;
  reset.sequence = 999;
  EXPECT_EQ(cause_of(reset), "invalid");
  reset.sequence = 1001 + 64'001;
  EXPECT_EQ(cause_of(reset), "invalid");
  reset.sequence = 1500;
  EXPECT_EQ(cause_of(reset), "") << "the other end asks back (RFC 5961)";
  EXPECT_EQ(state(), FlowState::established);
  reset.sequence = 1001;
  EXPECT_EQ(cause_of(reset), "");
  EXPECT_EQ(state(), FlowState::closed);
}

TEST_F(TrackerTest, ARefusedConnectionIsForgotten) {
  start({});
  cross(tcp);
  PacketSpec refusal = answer_to(tcp, kRst | kAck);
  refusal.payload.clear();
  refusal.acknowledged = 77;
  EXPECT_EQ(cause_of(refusal), "invalid") << "of somebody who did not see the SYN";
  refusal.acknowledged = 1000 + 1 + static_cast<std::uint32_t>(tcp.payload.size());
  EXPECT_EQ(cause_of(refusal), "");
  EXPECT_THAT(tracker->flows(now), SizeIs(0)) << "it never came about";
  EXPECT_EQ(cause_of(refusal), "invalid");
}

TEST_F(TrackerTest, AHostThatForgotItsFlowsMayBeginAgain) {
  start({});
  connect(tcp);
  PacketSpec again = tcp;
  again.payload.clear();
  again.sequence = 900'000;
  EXPECT_EQ(cause_of(again), "");
  EXPECT_EQ(state(), FlowState::established) << "the other end may not agree";
  PacketSpec back = answer_to(again, kSyn | kAck);
  back.sequence = 70'000, back.acknowledged = 900'001;
  EXPECT_EQ(cause_of(back), "");
  EXPECT_EQ(state(), FlowState::syn_received);
  again.sequence = 1'900'000;
  EXPECT_EQ(cause_of(again), "");
  back.flags = kRst | kAck;
  back.sequence = 0, back.acknowledged = 1'900'001;
  EXPECT_EQ(cause_of(back), "");
  EXPECT_EQ(state(), FlowState::closed);
}

TEST_F(TrackerTest, PicksUpWhatIsOlderUnlessARuleAsksForNew) {
  PacketSpec middle = tcp;
  middle.flags = kAck;
  start({});
  EXPECT_EQ(cause_of(middle), "");
  EXPECT_EQ(state(), FlowState::established);
  EXPECT_EQ(tracker->flows(now)[0].remaining, seconds(300)) << "half of it";
  EXPECT_EQ(cause_of(answer_to(middle)), "");
  EXPECT_EQ(tracker->flows(now)[0].remaining, seconds(432'000));
  start({.filter = {.rules = {{.states = kNew}}}});
  EXPECT_EQ(cause_of(middle), "invalid");
  start({.filter = {.rules = {{.states = kNew}}}, .pick_up = PickUp::always});
  EXPECT_EQ(cause_of(middle), "");
  start({.pick_up = PickUp::never});
  EXPECT_EQ(cause_of(middle), "invalid");
}

TEST_F(TrackerTest, TcpThatNoStackSendsIsInvalid) {
  start({});
  for (const int flags : {0, int{kFin}, kSyn | kFin, kSyn | kRst, kSyn | kAck, int{kRst}, 0x3f}) {
    PacketSpec odd = tcp;
    odd.flags = static_cast<std::uint8_t>(flags);
    EXPECT_EQ(cause_of(odd), "invalid") << flags;
  }
  EXPECT_THAT(tracker->flows(now), SizeIs(0));
}

TEST_F(TrackerTest, BothEndsMayOpenAtOnce) {
  start({});
  PacketSpec a = tcp, b = answer_to(tcp, kSyn);
  a.payload = b.payload = "";
  b.sequence = 5000, b.acknowledged = 0;
  EXPECT_EQ(cause_of(a), "");
  EXPECT_EQ(cause_of(b), "");
  a.flags = b.flags = kSyn | kAck;
  a.acknowledged = 5001, b.acknowledged = 1001;
  EXPECT_EQ(cause_of(a), "");
  EXPECT_EQ(cause_of(b), "");
  a.flags = kAck, a.sequence = 1001;
  EXPECT_EQ(cause_of(a), "");
  EXPECT_EQ(state(), FlowState::established);
}

TEST_F(TrackerTest, UdpLivesAsLongAsItIsAnswered) {
  start({});
  cross(udp);
  EXPECT_EQ(state(), FlowState::unreplied);
  now += seconds(1);
  cross(answer_to(udp));
  EXPECT_EQ(state(), FlowState::replied);
  EXPECT_EQ(tracker->flows(now)[0].remaining, seconds(30));
  now += seconds(2);
  cross(udp);
  EXPECT_EQ(state(), FlowState::stream);
  EXPECT_EQ(tracker->flows(now)[0].remaining, seconds(120));
  now += seconds(120);
  EXPECT_THAT(tracker->flows(now), SizeIs(0));
  tracker->tick(now);
  EXPECT_EQ(tracker->table().size(), 0u);
}

TEST_F(TrackerTest, IcmpAnswersBelongToTheirQueries) {
  start({});
  PacketSpec ping = udp;
  ping.protocol = kIcmp;
  PacketSpec pong = answer_to(ping);
  pong.source_port = 4000;
  pong.icmp_type = 0;
  EXPECT_EQ(cause_of(pong), "invalid");
  EXPECT_EQ(cause_of(ping), "");
  EXPECT_EQ(cause_of(pong), "");
  pong.source_port = 4001;
  EXPECT_EQ(cause_of(pong), "invalid") << "another id";
  pong.icmp_type = 14, pong.source_port = 4000;
  EXPECT_EQ(cause_of(pong), "invalid") << "of a timestamp";
  ping.icmp_type = 9;
  EXPECT_EQ(cause_of(ping), "invalid") << "no query";
}

TEST_F(TrackerTest, NeighbourDiscoveryIsNotTracked) {
  start({.filter = {.otherwise = Action::drop}});
  const PacketSpec solicitation{
      .source = ip("fd07::2"), .destination = ip("fd07::1"), .protocol = kIcmp, .icmp_type = 135};
  EXPECT_EQ(cause_of(solicitation), "");
  EXPECT_THAT(tracker->flows(now), SizeIs(0));
}

TEST_F(TrackerTest, OtherProtocolsAreFollowedByAddress) {
  start({.filter = {.rules = {{.in = {kInside}}}, .otherwise = Action::drop}});
  PacketSpec gre = udp;
  gre.protocol = 47;
  EXPECT_EQ(cause_of(answer_to(gre)), "policy");
  EXPECT_EQ(cause_of(gre), "");
  EXPECT_EQ(cause_of(answer_to(gre)), "");
}

TEST_F(TrackerTest, WhatWasAnsweredPassesBeforeTheRules) {
  start({.filter = {.rules = {{.in = {kInside}, .out = {kOutside}}}, .otherwise = Action::drop}});
  EXPECT_EQ(cause_of(answer_to(udp)), "policy");
  EXPECT_EQ(cause_of(udp), "");
  EXPECT_EQ(cause_of(udp), "");
  EXPECT_EQ(tracker->rules()[0].packets, 2u) << "new until it is answered";
  EXPECT_EQ(cause_of(answer_to(udp)), "");
  EXPECT_EQ(cause_of(udp), "");
  EXPECT_EQ(tracker->rules()[0].packets, 2u);
  EXPECT_EQ(tracker->rules()[0].bytes, 2u * (20 + 8 + 12));
}

TEST_F(TrackerTest, ARuleMaySayOtherwiseOfWhatIsEstablishedOrRelated) {
  start({.filter = {.rules = {{.action = Action::drop,
                               .log = true,
                               .to = {prefix("10.7.0.2")},
                               .states = kEstablished},
                              {.action = Action::drop, .states = kRelated}}}});
  EXPECT_EQ(cause_of(udp), "");
  EXPECT_EQ(cause_of(answer_to(udp)), "rule");
  EXPECT_EQ(tracker->rules()[0].logged, 1u);
  cross(icmp_error(packet_of(udp), ip("203.0.113.1"), 11));
  EXPECT_EQ(cause, "rule");
  EXPECT_EQ(tracker->rules()[1].packets, 1u);
}

TEST_F(TrackerTest, NewRulesEndWhatTheyWouldRefuse) {
  start({});
  connect(tcp);
  cross(udp);
  tracker->configure({.filter = {.rules = {{.action = Action::drop,
                                            .in = {kInside},
                                            .out = {kOutside},
                                            .protocol = kTcp,
                                            .destination_ports = {{80, 80}}}}}});
  ASSERT_THAT(tracker->flows(now), SizeIs(1));
  EXPECT_EQ(tracker->flows(now)[0].flow.tuples[0].protocol, kUdp);
  EXPECT_EQ(cause_of(answer_to(udp)), "");
  PacketSpec more = tcp;
  more.flags = kAck;
  EXPECT_EQ(cause_of(more), "rule");
}

TEST_F(TrackerTest, WhenItIsFullOnlyTheUnansweredMakeRoom) {
  start({.most_flows = 3});
  PacketSpec other_udp = udp, third = udp, fourth = udp;
  other_udp.source_port = 4001, third.source_port = 4002, fourth.source_port = 4003;
  connect(tcp);
  cross(udp);
  cross(other_udp);
  EXPECT_EQ(cause_of(third), "") << "in the place of the oldest";
  EXPECT_EQ(tracker->table().evicted(), 1u);
  EXPECT_EQ(cause_of(answer_to(other_udp)), "");
  EXPECT_EQ(cause_of(answer_to(third)), "");
  EXPECT_EQ(cause_of(fourth), "full");
  EXPECT_THAT(tracker->flows(now), SizeIs(3));
  now += seconds(31);
  tracker->tick(now);
  EXPECT_EQ(cause_of(fourth), "");
  EXPECT_EQ(tracker->flows(now).size(), 2u) << "and the connection is there";
}

TEST_F(TrackerTest, WhatEndsInBetweenIsDropped) {
  start({});
  cross(udp);
  Bytes frame = packet_of(udp);
  auto packet = read_ip_frame(frame);
  Ticket ticket;
  EXPECT_EQ(tracker->arrive(frame, *packet, kInside, now, ticket), "");
  tracker->configure({.filter = {.otherwise = Action::drop}});
  tracker->configure({});
  EXPECT_EQ(tracker->leave(frame, *packet, ticket, kOutside, kOwn4, now), "ended");
}

TEST_F(TrackerTest, TwoFirstPacketsMayBeOnTheirWayAtOnce) {
  start({.nat = {.masquerade = {{.out = {kOutside}}}}});
  std::array<Bytes, 2> frames{packet_of(udp), packet_of(udp)};
  std::array<IpPacket, 2> packets{*read_ip_frame(frames[0]), *read_ip_frame(frames[1])};
  std::array<Ticket, 2> tickets;
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(tracker->arrive(frames[i], packets[i], kInside, now, tickets[i]), "");
  }
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(tracker->leave(frames[i], packets[i], tickets[i], kOutside, kOwn4, now), "");
  }
  EXPECT_EQ(frames[0], frames[1]);
  EXPECT_THAT(tracker->flows(now), SizeIs(1));
}

TEST_F(TrackerTest, FragmentsFollowTheirFirst) {
  start({.nat = {.masquerade = {{.out = {kOutside}}}}});
  PacketSpec large = udp;
  large.payload = std::string(100, 'x');
  const auto fragments = fragments_of(packet_of(large), 40);
  ASSERT_THAT(fragments, SizeIs(3));
  cross(fragments[1]);
  EXPECT_EQ(cause, "fragment") << "before the first";
  std::vector<Bytes> passed;
  for (const Bytes& each : fragments) passed.push_back(cross(each));
  EXPECT_EQ(fault_of(whole_of(passed)), "");
  EXPECT_EQ(read_ip_frame(passed[2])->source, kOwn4);
  PacketSpec back = answer_to(large);
  back.destination = kOwn4;
  passed.clear();
  for (const Bytes& each : fragments_of(packet_of(back), 40)) passed.push_back(cross(each));
  EXPECT_EQ(fault_of(whole_of(passed)), "");
  EXPECT_EQ(read_ip_frame(passed[2])->destination, udp.source);
  now += seconds(31);
  cross(fragments[1]);
  EXPECT_EQ(cause, "fragment");
}

TEST_F(TrackerTest, FragmentsOfIp6FollowToo) {
  start({.filter = {.rules = {{.in = {kInside}}}, .otherwise = Action::drop}});
  // UDP from fd07::2:1 to 2001:db8::9:2 behind a fragment header, and the rest of it.
  const auto fragment = [](PortIndex from, std::string_view header, std::string_view rest) {
    constexpr const char* kEnds[] = {
        "20010db8000000000000000000000009fd070000000000000000000000000002",
        "fd07000000000000000000000000000220010db8000000000000000000000009"};
    return frame_with(1, 2, fmt::format("86dd6000000000102c40{}{}{}", kEnds[from], header, rest));
  };
  const Bytes first = fragment(kInside, "1100000100000007", "0001000200100000");
  const Bytes second = fragment(kInside, "1100000800000007", "0102030405060708");
  cross(second, kInside);
  EXPECT_EQ(cause, "fragment");
  EXPECT_EQ(cross(first, kInside), first);
  EXPECT_EQ(cross(second, kInside), second);
  cross(fragment(kInside, "1100000800000008", "0102030405060708"), kInside);
  EXPECT_EQ(cause, "fragment") << "of another datagram";
  cross(fragment(kOutside, "1100000100000009", "0001000300100000"), kOutside);
  EXPECT_EQ(cause, "policy");
  cross(fragment(kOutside, "1100000800000009", "0102030405060708"), kOutside);
  EXPECT_EQ(cause, "fragment") << "of what was dropped";
}

TEST_F(TrackerTest, FragmentsThatLieOverAHeaderAreRefused) {
  start({});
  PacketSpec large = tcp;
  large.payload = std::string(100, 'x');
  const auto fragments = fragments_of(packet_of(large), 16);
  cross(fragments[0]);
  EXPECT_EQ(cause, "invalid") << "without all of the header";
  cross(fragments[1]);
  EXPECT_EQ(cause, "invalid") << "the rest of it";
}

TEST(TrackerConfigTest, IsChecked) {
  const auto refusal = [](auto change) {
    TrackerConfig config;
    change(config);
    const auto done = check(config);
    return done ? "" : done.error().text;
  };
  const auto rule_refusal = [&](const FilterRule& rule) {
    return refusal([&](TrackerConfig& config) { config.filter.rules = {rule}; });
  };
  EXPECT_EQ(refusal([](auto&) {}), "");
  EXPECT_THAT(refusal([](auto& c) { c.most_flows = 0; }), HasSubstr("at least one"));
  EXPECT_THAT(rule_refusal({.destination_ports = {{80, 80}}}), HasSubstr("say which protocol"));
  EXPECT_THAT(rule_refusal({.protocol = kTcp, .source_ports = {{9, 8}}}), HasSubstr("are none"));
  EXPECT_THAT(rule_refusal({.icmp_types = {8}}), HasSubstr("ICMP"));
  EXPECT_THAT(rule_refusal({.from = {prefix("10.7.0.1/24")}}), HasSubstr("10.7.0.0/24"));
  EXPECT_THAT(refusal([](auto& c) { c.nat.masquerade = {{.ports = {2, 1}}}; }), HasSubstr("ports"));
  EXPECT_THAT(refusal([](auto& c) {
                c.nat.masquerade = {{.to = IpRange{ip("192.0.2.9"), ip("192.0.2.1")}}};
              }),
              HasSubstr("no range"));
  EXPECT_THAT(refusal([](auto& c) { c.nat.forward = {{.to = ip("10.7.0.2")}}; }),
              HasSubstr("one address"));
  EXPECT_THAT(
      refusal([](auto& c) { c.nat.forward = {{.address = ip("192.0.2.1"), .to = ip("fd07::2")}}; }),
      HasSubstr("family"));
  EXPECT_THAT(
      refusal([](auto& c) {
        c.nat.one_to_one = {{.outside = prefix("192.0.2.0/24"), .inside = prefix("10.7.0.0/25")}};
      }),
      HasSubstr("one size"));
}

}  // namespace
}  // namespace godwit::net
