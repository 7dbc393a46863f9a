#pragma once
// Frames and an outlet for the tests of components.
#include <map>
#include <vector>

#include "net/component.hh"
#include "net/mac_table.hh"
#include "net/vlan.hh"
#include "wire/wire_testing.hh"

namespace godwit::net {

inline void write_macs(Bytes& frame, Mac source, Mac destination) {
  for (std::size_t i = 0; i < 6; ++i) {
    frame[wire::kVnetBytes + i] = static_cast<std::byte>(destination >> (40 - 8 * i));
    frame[wire::kVnetBytes + 6 + i] = static_cast<std::byte>(source >> (40 - 8 * i));
  }
}

// Of an EtherType that nobody looks into (IEEE 802's for experiments).
inline Bytes frame(Mac source, Mac destination, std::optional<Vlan> tag = {}) {
  Bytes bare(wire::kVnetBytes + 64, std::byte{0x5a});
  std::fill_n(bare.begin(), wire::kVnetBytes, std::byte{0});
  write_macs(bare, source, destination);
  to_big_endian(std::uint16_t{0x88b5}, &bare[wire::kVnetBytes + 12]);
  if (!tag) return bare;
  Bytes tagged;
  push_tag(bare, *tag, tagged);
  return tagged;
}

// A frame that carries these bytes behind its addresses, from `type` on, given in hex.
inline Bytes frame_with(Mac source, Mac destination, std::string_view hex) {
  Bytes bytes(wire::kVnetBytes + 12);
  write_macs(bytes, source, destination);
  append(bytes, from_hex(hex));
  return bytes;
}

// IGMP in IPv4 with a router alert, as Linux sends it (captured, addresses changed).
inline Bytes igmp(Mac source, Mac destination, std::string_view message) {
  const std::size_t length = 24 + message.size() / 2;
  std::string hex = "080046c0";
  Bytes total;
  Writer(total).u16(static_cast<std::uint16_t>(length));
  hex += to_hex(total) + "00004000010200000a080001e000001694040000";
  return frame_with(source, destination, hex + std::string(message));
}
// MLD in ICMPv6 behind a hop-by-hop header.
inline Bytes mld(Mac source, Mac destination, std::string_view message) {
  Bytes total;
  Writer(total).u16(static_cast<std::uint16_t>(8 + message.size() / 2));
  return frame_with(source, destination,
                    "86dd60000000" + to_hex(total) + "0001fe80000000000000000000000000000a" +
                        "ff020000000000000000000000000016" + "3a00050200000100" +
                        std::string(message));
}

struct Received final : Outlet {
  std::map<PortIndex, std::vector<Bytes>> frames;
  void send(PortIndex port, std::span<const BytesView> sent) override {
    for (const BytesView each : sent) frames[port].push_back(to_bytes(each));
  }
};

// A frame comes in.
inline void give(Component& to, PortIndex port, Bytes frame, Instant now, Outlet& out) {
  const MutableBytes bytes(frame);
  to.handle(port, {&bytes, 1}, now, out);
}

}  // namespace godwit::net
