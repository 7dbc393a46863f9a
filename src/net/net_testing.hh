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

struct Received final : Outlet {
  std::map<PortIndex, std::vector<Bytes>> frames;
  void send(PortIndex port, std::span<const BytesView> sent) override {
    for (const BytesView each : sent) frames[port].push_back(to_bytes(each));
  }
};

}  // namespace godwit::net
