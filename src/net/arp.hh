#pragma once
// ARP for IPv4 over Ethernet (RFC 826).
#include <optional>

#include "net/packet.hh"

namespace godwit::net {

struct Arp {
  bool is_request = true;
  Mac sender_mac = 0;
  Ip sender{};  // 0.0.0.0 in a probe (RFC 5227)
  Mac target_mac = 0;
  Ip target{};
  bool operator==(const Arp&) const = default;
};

// Of a frame whose type is kTypeArp. Empty: damaged, or not of IPv4.
std::optional<Arp> read_arp(BytesView frame);
// A whole frame in `out`, padded as the least of Ethernet is.
void write_arp(const Arp& arp, Mac destination, Mac source, Bytes& out);
// "It is `mac` that has it", to who asked, in `out`.
void write_arp_answer(const Arp& request, Mac mac, Mac source, Bytes& out);

}  // namespace godwit::net
