// Frames of anybody's through a router with a narrow port, a proxy, a relay, advertisements and, at
// times, NAT; and to the DHCP server to which it relays. What goes out is a frame at a port that
// there is, of no more than its MTU unless it is a super-frame; tables are bounded.
#include <cstdlib>

#include "net/dhcp_server.hh"
#include "net/router.hh"

namespace {

using namespace godwit;
using namespace godwit::net;

constexpr std::size_t kMostNeighbours = 4;
constexpr Mac kMac = 0x020000000001;
constexpr std::uint16_t kNarrow = 1280;

void require(bool good) {
  if (!good) std::abort();
}

IpPrefix prefix(const char* text) { return parse_ip_prefix(text).value(); }

RouterConfig some_config(std::uint8_t traits) {
  RouterConfig config{.most_neighbours = kMostNeighbours};
  config.ports[0] = {.mac = kMac,
                     .addresses = {prefix("10.7.0.1/24"), prefix("fd00:7::1/64")},
                     .is_proxy = (traits & 1) != 0,
                     .advertises = (traits & 2) != 0};
  config.ports[1] = {.mac = kMac + 1,
                     .addresses = {prefix("192.0.2.1/24"), prefix("2001:db8::1/64")},
                     .mtu = kNarrow};
  config.routes = {{.to = prefix("0.0.0.0/0"), .via = parse_ip("192.0.2.254").value()}};
  if ((traits & 4) != 0) config.ports[0].shared_mac = kMac + 0x99;
  if ((traits & 8) != 0) config.ports[0].dhcp_relay = parse_ip("192.0.2.2").value();
  if ((traits & 16) != 0) {
    config.tracker =
        TrackerConfig{.filter = {.rules = {{.action = Action::reject, .protocol = kTcp}}},
                      .nat = {.masquerade = {{.out = {1}}}},
                      .most_flows = 8};
  }
  require(check(config).has_value());
  return config;
}

DhcpConfig server_config() {
  DhcpConfig config{.address = prefix("10.7.0.2/24"), .mac = kMac};
  config.networks = {
      {.prefix = prefix("10.7.0.0/24"), .first = Ip::of4(0x0a070010), .last = Ip::of4(0x0a070012)}};
  return config;
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
    require(port < 2 && !frames.empty());
    for (const BytesView frame : frames) {
      require(frame.size() >= wire::kMinFrameBytes && frame.size() <= wire::kMaxFrameBytes);
    }
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Reader input(std::as_bytes(std::span(data, size)));
  Router router(some_config(input.u8()), 1);
  DhcpServer server(server_config());
  Sink sink;
  Instant now{};
  while (input.remaining() > 0) {
    const std::uint8_t step = input.u8();
    if (step % 16 == 0) {
      router.configure(some_config(input.u8()));
    } else if (step % 16 == 1) {
      now += seconds(input.u8());
      router.tick(now, sink);
      server.tick(now, sink);
    } else {
      const std::size_t length = std::min<std::size_t>(input.u16() % 2048, input.remaining());
      Bytes frame = to_bytes(input.bytes(length));
      mend_ip4(frame);
      Bytes same = frame;
      const MutableBytes one(frame), other(same);
      router.handle(static_cast<PortIndex>(step % 2), {&one, 1}, now, sink);
      server.handle(0, {&other, 1}, now, sink);
    }
    require(router.neighbours().entries().size() <= kMostNeighbours);
    require(server.leases().size() <= 3 + 1);
  }
  return 0;
}
