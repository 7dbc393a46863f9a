#include "net/dhcp_relay.hh"

namespace godwit::net {
namespace {

constexpr std::byte kRequest{1}, kReply{2};
constexpr auto kMostHops = std::byte{16};  // RFC 1542, 4.1.1

bool is_message(BytesView payload, std::byte kind) {
  return payload.size() >= kDhcpLeastBytes && payload[0] == kind && payload[2] == std::byte{6};
}

}  // namespace

bool relay_request(MutableBytes payload, Ip relay) {
  if (!is_message(payload, kRequest) || payload[kDhcpHopsAt] >= kMostHops) return false;
  payload[kDhcpHopsAt] = static_cast<std::byte>(std::to_integer<int>(payload[kDhcpHopsAt]) + 1);
  if (Ip::at4(&payload[kDhcpRelayAt]).is_unspecified()) relay.write(&payload[kDhcpRelayAt]);
  return true;
}

std::optional<RelayedAnswer> read_relayed_answer(BytesView payload) {
  if (!is_message(payload, kReply)) return std::nullopt;
  RelayedAnswer answer{.relay = Ip::at4(&payload[kDhcpRelayAt]),
                       .to = Ip::at4(&payload[kDhcpYourAddressAt]),
                       .mac = mac_at(&payload[kDhcpHardwareAt])};
  const bool to_all = (payload[kDhcpFlagsAt] & std::byte{0x80}) != std::byte{0};
  if (to_all || answer.to.is_unspecified()) {
    answer.to = Ip::of4(0xffffffff);
    answer.mac = kBroadcast;
  }
  return answer;
}

}  // namespace godwit::net
