// Frames of anybody's through a tracker that filters and translates, which is configured anew now
// and then, and through a firewall. What is dropped is as it came; what passes is as long, and has
// right checksums if it had them before; no table is larger than it may be.
#include <cstdlib>

#include "net/firewall.hh"

namespace {

using namespace godwit;
using namespace godwit::net;

constexpr std::size_t kMostFlows = 8;
constexpr Ip kOutside = Ip::of4(0xc0000201), kInside = Ip::of4(0x0a070001);

void require(bool good) {
  if (!good) std::abort();
}

FilterRule some_rule(Reader& input) {
  FilterRule rule{.action = static_cast<Action>(input.u8() % 3)};
  const std::uint8_t traits = input.u8();
  if ((traits & 1) != 0) rule.in = {static_cast<PortIndex>(input.u8() % 2)};
  if ((traits & 2) != 0) rule.from = {IpPrefix{Ip::of4(input.u32()), 24}.network()};
  if ((traits & 4) != 0) rule.protocol = input.u8();
  if ((traits & 8) != 0) rule.states = input.u8() % 8;
  rule.log = (traits & 16) != 0;
  if (rule.protocol == kUdp) rule.destination_ports = {{0, input.u16()}};
  return rule;
}

TrackerConfig some_config(Reader& input) {
  TrackerConfig config{.most_flows = kMostFlows};
  const std::uint8_t traits = input.u8();
  for (int rules = traits % 3; rules > 0; --rules) {
    config.filter.rules.push_back(some_rule(input));
  }
  if ((traits & 4) != 0) config.filter.otherwise = Action::drop;
  if ((traits & 8) != 0) config.nat.masquerade = {{.out = {0}, .ports = {4000, 4003}}};
  if ((traits & 16) != 0) config.nat.forward = {{.address = kOutside, .to = kInside}};
  if ((traits & 32) != 0) {
    config.nat.one_to_one = {
        {.outside = {Ip::of4(0xcb007100), 24}, .inside = {Ip::of4(0x0a070000), 24}}};
  }
  if ((traits & 64) != 0) config.pick_up = PickUp::always;
  require(check(config).has_value());
  return config;
}

// Most would fall at the first check.
void mend_ip4(MutableBytes frame) {
  if (frame.size() < kPayloadAt + kIp4Bytes || (frame[kPayloadAt] >> 4) != std::byte{4}) return;
  const auto header = std::to_integer<std::size_t>(frame[kPayloadAt] & std::byte{15}) * 4;
  if (header < kIp4Bytes || frame.size() < kPayloadAt + header) return;
  to_big_endian(std::uint16_t{0}, &frame[kPayloadAt + 10]);
  to_big_endian(checksum_of(frame.subspan(kPayloadAt, header)), &frame[kPayloadAt + 10]);
}

bool has_right_sum(BytesView frame, const IpPacket& packet) {
  if (packet.is_fragment() || frame[0] != std::byte{0}) return false;
  const bool is_checked = packet.protocol == kTcp || packet.protocol == kUdp ||
                          packet.protocol == kIcmp || packet.protocol == kIcmp6;
  if (!is_checked || !packet.has_l4(frame, 8)) return false;
  const std::size_t length = packet.end - packet.l4;
  const std::uint64_t pseudo =
      packet.protocol == kIcmp
          ? 0
          : pseudo_sum(packet.source, packet.destination, packet.protocol, length);
  return checksum_of(frame.subspan(packet.l4, length), pseudo) == 0;
}

struct Checked {
  Tracker tracker;
  Instant now{};

  void cross(Bytes frame, PortIndex in) {
    auto packet = read_ip_frame(frame);
    if (!packet) return;
    const Bytes before = frame;
    const bool was_right = has_right_sum(frame, *packet);
    Ticket ticket;
    if (!tracker.arrive(frame, *packet, in, now, ticket).empty()) return require(frame == before);
    if (was_right) require(has_right_sum(frame, *packet));
    const auto out = static_cast<PortIndex>(packet->destination == kOutside ? kItself : in ^ 1);
    const Ip own = packet->is_ip4 ? kOutside : Ip{1, 1};
    const auto cause = tracker.leave(frame, *packet, ticket, out, own, now);
    require(frame.size() == before.size());
    if (!cause.empty()) {
      require(ticket.kind == Ticket::Kind::related ||
              packet->source == read_ip_frame(before)->source);
      if (was_right) require(has_right_sum(frame, *packet));
      return;
    }
    const auto again = read_ip_frame(frame);
    require(again && again->source == packet->source && again->destination == packet->destination);
    if (was_right) require(has_right_sum(frame, *again));
  }
};

struct Sink final : Outlet {
  void send(PortIndex port, std::span<const BytesView> frames) override {
    require(port < 2 && !frames.empty());
    for (const BytesView frame : frames) require(frame.size() >= wire::kMinFrameBytes);
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Reader input(std::as_bytes(std::span(data, size)));
  Checked router{.tracker = Tracker(some_config(input), 1)};
  Firewall firewall({.most_flows = kMostFlows}, 1);
  Sink sink;
  while (input.remaining() > 0) {
    const std::uint8_t step = input.u8();
    if (step % 16 == 0) {
      const TrackerConfig config = some_config(input);
      router.tracker.configure(config);
      firewall.configure({.filter = config.filter, .most_flows = kMostFlows});
    } else if (step % 16 == 1) {
      router.now += seconds(input.u8());
      router.tracker.tick(router.now);
      firewall.tick(router.now, sink);
    } else {
      const std::size_t length = std::min<std::size_t>(input.u8(), input.remaining());
      Bytes frame = to_bytes(input.bytes(length));
      mend_ip4(frame);
      const auto in = static_cast<PortIndex>(step % 2);
      router.cross(frame, in);
      const MutableBytes view(frame);
      firewall.handle(in, {&view, 1}, router.now, sink);
    }
    require(router.tracker.table().size() <= kMostFlows &&
            firewall.tracker().table().size() <= kMostFlows);
  }
  return 0;
}
