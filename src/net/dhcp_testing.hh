#pragma once
// What DHCP clients send, for the tests of servers.
#include "net/dhcp_server.hh"
#include "net/net_testing.hh"

namespace godwit::net {

inline constexpr Mac kServer = 0x020000000002, kClient = 0x0200000000c1, kOther = 0x0200000000c2,
                     kRelayMac = 0x0200000000f1;

struct Wish {
  DhcpType type = DhcpType::discover;
  Mac mac = kClient;
  const char* client = "0.0.0.0";
  const char* relay = "0.0.0.0";
  const char* requested = nullptr;
  const char* server = nullptr;
  std::uint16_t flags = 0;
  bool routes = false;
};

inline Bytes request_of(const Wish& wish) {
  const auto ip = [](const char* text) { return parse_ip(text).value(); };
  Bytes payload;
  Writer(payload).u8(1).u8(1).u8(6).u8(0).u32(0x1234).u16(3).u16(wish.flags);
  Writer(payload).u32(ip(wish.client).as4()).u32(0).u32(0).u32(ip(wish.relay).as4());
  append_mac(wish.mac, payload);
  payload.resize(236);
  Writer(payload).u32(0x63825363).u8(53).u8(1).u8(static_cast<std::uint8_t>(wish.type));
  if (wish.requested != nullptr) Writer(payload).u8(50).u8(4).u32(ip(wish.requested).as4());
  if (wish.server != nullptr) Writer(payload).u8(54).u8(4).u32(ip(wish.server).as4());
  Writer(payload).u8(12).u8(4).bytes(as_bytes("web1"));
  if (wish.routes) Writer(payload).u8(55).u8(2).u8(3).u8(121);
  Writer(payload).u8(255);
  const bool is_relayed = !ip(wish.relay).is_unspecified();
  Bytes frame;
  write_udp({.source_mac = is_relayed ? kRelayMac : wish.mac,
             .destination_mac = is_relayed ? kServer : kBroadcast,
             .source = ip(is_relayed ? wish.relay : wish.client),
             .destination = is_relayed ? ip("10.7.0.2") : ip("255.255.255.255")},
            is_relayed ? 67 : 68, 67, payload, frame);
  return frame;
}

}  // namespace godwit::net
