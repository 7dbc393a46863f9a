// Frames of anybody's at any port of a switch with VLANs, a mirror and a small table, which is
// configured anew now and then. What goes out is a frame, at another port that there is.
#include <cstdlib>

#include "net/switch.hh"

namespace {

using namespace godwit;
using namespace godwit::net;

constexpr PortIndex kPorts = 5;

void require(bool good) {
  if (!good) std::abort();
}

SwitchConfig some_config(Reader& input) {
  SwitchConfig config{.most_macs = 4};
  for (PortIndex i = 0; i < kPorts; ++i) {
    if (input.u8() % 8 == 0) continue;
    SwitchPort& port = config.ports[i];
    const std::uint8_t traits = input.u8();
    if (traits % 2 == 0) {
      port.access = static_cast<Vlan>(1 + input.u8() % 3);
    } else {
      port.native = static_cast<Vlan>(input.u8() % 3);
      if (traits % 4 == 1) port.trunk = {static_cast<Vlan>(1 + input.u8() % 3)};
    }
    port.isolated = (traits & 16) != 0;
    port.stretched = (traits & 32) != 0;
    port.mirrored = (traits & 64) != 0;
    port.flooded_per_s = (traits & 128) != 0 ? 10 : 0;
  }
  if (const PortIndex mirror = input.u8() % kPorts; config.ports.contains(mirror)) {
    config.mirror = mirror;
  }
  return config;
}

struct Sink final : Outlet {
  const SwitchConfig* config = nullptr;
  PortIndex from = 0;
  std::size_t most = 0;  // bytes of a frame
  void send(PortIndex port, std::span<const BytesView> frames) override {
    require(config->ports.contains(port) && !frames.empty());
    require(port != from);
    for (const BytesView frame : frames) {
      require(frame.size() >= wire::kMinFrameBytes && frame.size() <= most + kTagBytes);
    }
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Reader input(std::as_bytes(std::span(data, size)));
  SwitchConfig config = some_config(input);
  Switch sw(config, 1);
  Instant now{};
  Sink sink;
  while (input.remaining() > 0) {
    const std::uint8_t step = input.u8();
    if (step % 16 == 0) {
      config = some_config(input);
      sw.configure(config);
    } else if (step % 16 == 1) {
      now += seconds(input.u8());
      sw.tick(now, sink);
    } else {
      sink.config = &config;
      sink.from = static_cast<PortIndex>(step % kPorts);
      const std::size_t length = std::min<std::size_t>(input.u8(), input.remaining());
      sink.most = length;
      Bytes bytes = to_bytes(input.bytes(length));
      const MutableBytes frame(bytes);
      sw.handle(sink.from, {&frame, 1}, now, sink);
    }
    require(sw.macs().size() <= 4);
  }
  return 0;
}
