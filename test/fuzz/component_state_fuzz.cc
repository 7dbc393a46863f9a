// What strangers send as the state of a switch, firewall, router or DHCP server, between frames. It
// is refused, or taken within bounds; and what it then tells, another instance takes.
#include <cstdlib>
#include <memory>

#include "net/dhcp_server.hh"
#include "net/firewall.hh"
#include "net/router.hh"
#include "net/state.hh"
#include "net/switch.hh"

namespace {

using namespace godwit;
using namespace godwit::net;

constexpr std::size_t kMostMacs = 4, kMostFlows = 8, kMostNeighbours = 4, kMostLeases = 4;
constexpr Mac kMac = 0x020000000001;

void require(bool good) {
  if (!good) std::abort();
}

IpPrefix prefix(const char* text) { return parse_ip_prefix(text).value(); }

enum Kind : std::uint8_t { kSwitch, kFirewall, kRouter, kNat, kServer };

SwitchConfig switch_config() {
  SwitchConfig config{.most_macs = kMostMacs};
  config.ports[0].access = 10;
  config.ports[1].trunk = {10, 20};
  config.ports[2] = {};
  return config;
}

RouterConfig router_config(bool has_nat) {
  RouterConfig config{.most_neighbours = kMostNeighbours};
  config.ports[0] = {.mac = kMac, .addresses = {prefix("10.7.0.1/24"), prefix("fd00:7::1/64")}};
  config.ports[1] = {.mac = kMac + 1,
                     .addresses = {prefix("192.0.2.1/24"), prefix("2001:db8::1/64")}};
  config.routes = {{.to = prefix("0.0.0.0/0"), .via = parse_ip("192.0.2.254").value()}};
  if (has_nat) {
    config.tracker = {.nat = {.masquerade = {{.out = {1}}}}, .most_flows = kMostFlows};
  }
  return config;
}

DhcpConfig server_config() {
  DhcpConfig config{.address = prefix("10.7.0.2/24"), .mac = kMac};
  config.networks = {
      {.prefix = prefix("10.7.0.0/24"), .first = Ip::of4(0x0a070010), .last = Ip::of4(0x0a070013)}};
  return config;
}

std::unique_ptr<Component> make(Kind kind, std::uint64_t seed) {
  switch (kind) {
    case kSwitch:
      return std::make_unique<Switch>(switch_config(), seed);
    case kFirewall:
      return std::make_unique<Firewall>(FirewallConfig{.most_flows = kMostFlows}, seed);
    case kRouter:
    case kNat:
      return std::make_unique<Router>(router_config(kind == kNat), seed);
    case kServer:
      return std::make_unique<DhcpServer>(server_config());
  }
  std::abort();
}

void look(const Component& component) {
  if (const auto* sw = dynamic_cast<const Switch*>(&component)) {
    require(sw->macs().size() <= kMostMacs);
  } else if (const auto* firewall = dynamic_cast<const Firewall*>(&component)) {
    require(firewall->tracker().table().size() <= kMostFlows);
  } else if (const auto* router = dynamic_cast<const Router*>(&component)) {
    require(router->neighbours().entries().size() <= kMostNeighbours);
    require(!router->tracker() || router->tracker()->table().size() <= kMostFlows);
  } else if (const auto* server = dynamic_cast<const DhcpServer*>(&component)) {
    require(server->leases().size() <= kMostLeases);
  }
}

void mend_ip4(MutableBytes frame) {
  if (frame.size() < kPayloadAt + kIp4Bytes || (frame[kPayloadAt] >> 4) != std::byte{4}) return;
  const auto header = std::to_integer<std::size_t>(frame[kPayloadAt] & std::byte{15}) * 4;
  if (header < kIp4Bytes || frame.size() < kPayloadAt + header) return;
  to_big_endian(std::uint16_t{0}, &frame[kPayloadAt + 10]);
  to_big_endian(checksum_of(frame.subspan(kPayloadAt, header)), &frame[kPayloadAt + 10]);
}

struct Sink final : Outlet {
  void send(PortIndex port, std::span<const BytesView> frames) override {
    require(port < 3 && !frames.empty());
    for (const BytesView frame : frames) {
      require(frame.size() >= wire::kMinFrameBytes && frame.size() <= wire::kMaxFrameBytes);
    }
  }
};

// Most would fall at the first check.
Bytes framed(std::uint8_t kind, BytesView rows) {
  Bytes message;
  Writer(message).u8(1).u16(kind).u16(0x0100).u32(static_cast<std::uint32_t>(rows.size()));
  append(message, rows);
  return message;
}

void tell(Component& from, Component& to, std::size_t most, Instant now) {
  const Bytes message = from.take_state(most, now);
  if (!message.empty()) require(to.load_state(message, now).has_value());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Reader input(std::as_bytes(std::span(data, size)));
  const Kind kind = static_cast<Kind>(input.u8() % 5);
  auto component = make(kind, 1), follower = make(kind, 2);
  component->begin_state();
  Sink sink;
  Instant now = Instant{} + seconds(1000);
  while (input.remaining() > 0) {
    const std::uint8_t step = input.u8();
    if (step % 8 == 0) {
      now += seconds(input.u8());
      component->tick(now, sink);
    } else if (step % 8 == 1) {
      tell(*component, *follower, step, now);
    } else {
      const std::size_t length = std::min<std::size_t>(input.u16() % 2048, input.remaining());
      Bytes bytes = to_bytes(input.bytes(length));
      if (step % 8 == 2) {
        (void)component->load_state(bytes, now);
      } else if (step % 8 < 6) {
        (void)component->load_state(framed(step / 8 % 12, bytes), now);
      } else {
        mend_ip4(bytes);
        const MutableBytes frame(bytes);
        component->handle(static_cast<PortIndex>(step / 8 % 3), {&frame, 1}, now, sink);
      }
    }
    look(*component);
  }
  for (auto& to : {make(kind, 3), make(kind, 4)}) {
    component->begin_state();
    for (int i = 0; i < 1000; ++i) tell(*component, *to, 100, now);
    component->end_state();
    look(*to);
  }
  return 0;
}
