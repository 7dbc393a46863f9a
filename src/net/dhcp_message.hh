#pragma once
// DHCPv4 messages (RFC 2131, options of RFC 2132, 3442): decode a client's, encode the answer.
#include <array>
#include <optional>
#include <string>
#include <vector>

#include "net/packet.hh"

namespace godwit::net {

inline constexpr std::uint16_t kDhcpServerPort = 67, kDhcpClientPort = 68;
// Of a relay's own field in the fixed part, which starts the UDP payload.
inline constexpr std::size_t kDhcpHopsAt = 3, kDhcpFlagsAt = 10, kDhcpYourAddressAt = 16,
                             kDhcpRelayAt = 24, kDhcpHardwareAt = 28, kDhcpLeastBytes = 240;

enum class DhcpType : std::uint8_t {
  discover = 1,
  offer,
  request,
  decline,
  ack,
  nak,
  release,
  inform
};

struct DhcpRequest {
  DhcpType type = DhcpType::discover;
  std::uint32_t transaction = 0;
  std::uint16_t seconds = 0, flags = 0;
  Ip client{};  // ciaddr: that it has, and answers at
  Ip relay{};   // giaddr
  Mac mac = 0;
  Bytes identifier{};  // option 61; else the hardware type and address, as option 61 has them
  std::optional<Ip> requested{}, server{};
  std::string host{};
  bool wants_routes = false;  // option 121 is in its list

  bool wants_broadcast() const { return (flags & 0x8000) != 0; }
};
// Of the UDP payload. Empty: it is no request of a client's, or damaged.
std::optional<DhcpRequest> read_dhcp(BytesView payload);

struct DhcpRoute {
  IpPrefix to{};
  Ip via{};
  bool operator==(const DhcpRoute&) const = default;
};
// What a network's hosts are told.
struct DhcpOptions {
  std::uint8_t length = 24;  // of the network
  std::optional<Ip> router{};
  std::vector<Ip> dns{};
  std::string domain{};
  std::uint16_t mtu = 0;  // 0: not told
  std::vector<DhcpRoute> routes{};
  bool operator==(const DhcpOptions&) const = default;
};

struct DhcpAnswer {
  DhcpType type = DhcpType::offer;
  Ip yours{};
  Ip server{};
  std::uint32_t lease_s = 0;  // 0: not told (to an inform)
  std::string why{};          // of a refusal
};
// The UDP payload, in `out`. `options`: null for a refusal.
void write_dhcp(const DhcpRequest& request, const DhcpAnswer& answer, const DhcpOptions* options,
                Bytes& out);

}  // namespace godwit::net
