#include "net/flow.hh"

#include <fmt/format.h>

#include "net/packet.hh"

namespace godwit::net {
namespace {

std::string name_of(std::uint8_t protocol) {
  switch (protocol) {
    case kTcp:
      return "tcp";
    case kUdp:
      return "udp";
    case kIcmp:
      return "icmp";
    case kIcmp6:
      return "icmp6";
    default:
      return std::to_string(protocol);
  }
}

std::string endpoint_text(Ip ip, std::uint16_t port) {
  return ip.is4() ? fmt::format("{}:{}", ip.text(), port) : fmt::format("[{}]:{}", ip.text(), port);
}

}  // namespace

std::string Tuple::text() const {
  return fmt::format("{} {} -> {}", name_of(protocol), endpoint_text(source, source_port),
                     endpoint_text(destination, destination_port));
}

std::string_view to_text(FlowState state) {
  using enum FlowState;
  switch (state) {
    case unreplied:
      return "unreplied";
    case replied:
      return "replied";
    case stream:
      return "stream";
    case syn_sent:
      return "syn-sent";
    case syn_received:
      return "syn-received";
    case established:
      return "established";
    case closing:
      return "closing";
    case time_wait:
      return "time-wait";
    case closed:
      return "closed";
  }
  return "";
}

}  // namespace godwit::net
