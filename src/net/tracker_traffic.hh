#pragma once
// What hosts inside and outside of TrackerTest's router say to each other, from a seed: TCP as it
// should be, and strays of all kinds. Used where two routers are compared.
#include <algorithm>
#include <utility>

#include "net/tracker_testing.hh"

namespace godwit::net {

inline constexpr std::uint8_t kOther = 253;  // for experiments (RFC 3692): nobody looks into it

// Two ends of TCP that do as they should, with a segment sent twice now and then.
struct Conversation {
  std::array<PacketSpec, 2> ends{};  // what each sends next; the client is the first
  struct Segment {
    std::size_t by = 0;
    std::uint8_t flags = 0;
    std::size_t bytes = 0;
  };
  std::vector<Segment> rest{};  // last first
  std::optional<PacketSpec> again{};

  PacketSpec next() {
    const Segment segment = rest.back();
    rest.pop_back();
    PacketSpec& end = ends[segment.by];
    end.flags = segment.flags;
    end.payload = std::string(segment.bytes, 'z');
    again = end;
    const bool counts = (segment.flags & (kSyn | kFin)) != 0;
    end.sequence += static_cast<std::uint32_t>(segment.bytes) + (counts ? 1 : 0);
    ends[1 - segment.by].acknowledged = end.sequence;
    return *again;
  }
};

struct Traffic {
  wire::testing::Random random;

  std::size_t upto(std::size_t most) { return random() % most; }
  template <class T>
  T one_of(std::initializer_list<T> values) {
    return *(values.begin() + upto(values.size()));
  }
  // Each host has ports of its own: which ones are taken instead is nobody's business.
  PacketSpec fresh() {
    const std::size_t host = upto(3);
    const bool is_ip6 = upto(4) == 0, from_inside = upto(3) != 0;
    const auto inside = one_of({2, 3, 4});
    const auto text = [&](const char* four, const char* six, auto number) {
      return ip(fmt::format(fmt::runtime(is_ip6 ? six : four), number));
    };
    PacketSpec spec;
    spec.source = from_inside ? text("10.7.0.{}", "fd07::{}", inside)
                              : text("198.51.100.{}", "2001:db8:9::{}", host + 1);
    spec.destination = from_inside ? text("198.51.100.{}", "2001:db8:9::{}", host + 1)
                                   : text("10.7.0.{}", "fd07::{}", one_of({2, 9}));
    if (!is_ip6 && upto(3) == 0) spec.destination = one_of({ip("192.0.2.1"), ip("203.0.113.4")});
    spec.protocol = one_of<std::uint8_t>({kTcp, kTcp, kUdp, kIcmp, kOther});
    const auto number = from_inside ? static_cast<std::size_t>(inside) : 5 + host;
    spec.source_port = static_cast<std::uint16_t>(4000 + 100 * number + upto(4));
    spec.destination_port = one_of<std::uint16_t>({80, 81, 82, 8000});
    if (spec.destination == ip("10.7.0.9")) spec.destination_port = 81;  // 80 may be forwarded to
    spec.sequence = 1000 * static_cast<std::uint32_t>(1 + upto(3));
    if (spec.protocol == kIcmp) spec.icmp_type = is_ip6 ? 128 : 8;
    spec.payload = std::string(spec.protocol == kTcp ? 0 : upto(30), 'x');
    if (upto(15) == 0) spec.flags = some_flags();
    spec.needs_checksum = upto(3) == 0 && (spec.protocol == kTcp || spec.protocol == kUdp);
    spec.has_checksum = is_ip6 || spec.needs_checksum || upto(3) != 0;
    return spec;
  }
  std::uint8_t some_flags() {
    return one_of<std::uint8_t>(
        {kSyn, kSyn | kAck, kAck, kFin | kAck, kRst, kRst | kAck, kAck | kPush, 0, kFin});
  }
  std::vector<Conversation::Segment> some_talk() {
    std::vector<Conversation::Segment> all{{0, kSyn, 0}};
    if (upto(5) == 0) return {{1, kRst | kAck, 0}, {0, kSyn, 0}};
    all.push_back({1, kSyn | kAck, 0});
    all.push_back({0, kAck, 0});
    for (std::size_t n = upto(6); n > 0; --n) {
      all.push_back({upto(2), one_of<std::uint8_t>({kAck, kAck | kPush}), 1 + upto(30)});
      if (upto(2) == 0) all.push_back({1 - all.back().by, kAck, 0});
    }
    const std::size_t first = upto(2);
    if (upto(4) == 0) {
      all.push_back({first, kRst | kAck, 0});
    } else {
      all.push_back({first, kFin | kAck, 0});
      if (upto(2) == 0) all.push_back({1 - first, kAck, 0});
      if (upto(3) == 0) all.push_back({1 - first, kAck, 5});
      all.push_back({1 - first, kFin | kAck, 0});
      all.push_back({first, kAck, 0});
    }
    std::ranges::reverse(all);
    return all;
  }
  Conversation some_conversation() {
    Conversation talk;
    PacketSpec& client = talk.ends[0];
    do client = fresh();
    while (client.protocol != kTcp);
    client.source_port = static_cast<std::uint16_t>(10'000 + talk_count++);
    if (upto(4) == 0 && over) client = *std::exchange(over, std::nullopt);  // the same two again
    client.sequence = static_cast<std::uint32_t>(random()), client.acknowledged = 0;
    talk.rest = some_talk();
    return talk;
  }
  // By who got it; not of TCP.
  PacketSpec answer(const PacketSpec& to) {
    PacketSpec back = TrackerTest::answer_to(to);
    back.hops = 64;
    if (to.protocol == kIcmp) {
      std::swap(back.source_port, back.destination_port);
      back.icmp_type = to.source.is4() ? 0 : 129;
    }
    return back;
  }
  std::vector<PacketSpec> past{};  // what came out, and could be answered
  std::vector<Conversation> talks{};
  std::optional<PacketSpec> over{};  // the client of one that has ended
  std::size_t talk_count = 0;
};

// As it came out: how the other end sees who sent it.
inline PacketSpec as_seen(BytesView frame, const PacketSpec& spec) {
  const auto packet = read_ip_frame(frame).value();
  PacketSpec out = spec;
  out.source = packet.source, out.destination = packet.destination;
  for (const Side side : {Side::source, Side::destination}) {
    const std::size_t at = port_at(frame, packet, side);
    if (at == 0) continue;
    const auto port = from_big_endian<std::uint16_t>(&frame[at]);
    const bool is_first = side == Side::source || spec.protocol == kIcmp;
    (is_first ? out.source_port : out.destination_port) = port;
  }
  return out;
}

inline PortIndex side_of(Ip address) {
  return TrackerTest::port_of(address) == kInside ? kInside : kOutside;
}

// A packet of somebody's; `both` takes it through both routers, and says whether it came out: as
// `came_out`, then.
template <class Both>
void step(Traffic& traffic, const Bytes& came_out, Both both) {
  const auto send = [&](const PacketSpec& spec) {
    return both(packet_of(spec), side_of(spec.source));
  };
  switch (traffic.upto(4)) {
    case 0: {
      const PacketSpec spec = traffic.fresh();
      if (send(spec) && spec.protocol != kTcp) traffic.past.push_back(as_seen(came_out, spec));
      break;
    }
    case 1: {
      if (traffic.past.empty()) break;
      const std::size_t which = traffic.upto(traffic.past.size());
      const PacketSpec to = traffic.past[which];
      if (traffic.past.size() > 12)
        traffic.past.erase(traffic.past.begin() + static_cast<std::ptrdiff_t>(which));
      if (to.protocol == kOther || traffic.upto(3) != 0) {
        const PacketSpec answer = traffic.answer(to);
        both(packet_of(answer), side_of(to.destination));
        break;
      }
      const int type = to.source.is4() ? traffic.one_of({3, 11, 12}) : traffic.one_of({1, 2, 3});
      both(icmp_error(packet_of(to), to.destination, static_cast<std::uint8_t>(type),
                      traffic.one_of({48UL, 1000UL})),
           side_of(to.destination));
      break;
    }
    default: {
      if (traffic.talks.size() < 8) traffic.talks.push_back(traffic.some_conversation());
      const std::size_t which = traffic.upto(traffic.talks.size());
      Conversation& talk = traffic.talks[which];
      const bool is_new = !talk.again;
      const PacketSpec spec = talk.again && traffic.upto(6) == 0 ? *talk.again : talk.next();
      const bool did_pass = both(packet_of(spec), side_of(spec.source));
      if (did_pass && is_new) {
        talk.ends[1] = TrackerTest::answer_to(as_seen(came_out, spec));
        talk.ends[1].sequence = static_cast<std::uint32_t>(traffic.random());
        talk.ends[1].acknowledged = talk.ends[0].sequence;
      }
      if (!did_pass || talk.rest.empty()) {
        if (did_pass) traffic.over = talk.ends[0];
        traffic.talks.erase(traffic.talks.begin() + static_cast<std::ptrdiff_t>(which));
      }
    }
  }
}

}  // namespace godwit::net
