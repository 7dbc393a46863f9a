#include "wire/types.hh"

#include "base/check.hh"

namespace godwit::wire {

ChannelId ChannelId::direct(const WireId& wire, const PortEpoch& a, const PortEpoch& b) {
  CHECK(a.port != b.port, "a wire joins two ports, not {} to itself", a.port.text());
  return a < b ? ChannelId{wire, a, b, {}} : ChannelId{wire, b, a, {}};
}

// Ids are random; what tells apart the channels of one wire is added to them.
std::size_t ChannelIdHash::operator()(const ChannelId& id) const noexcept {
  constexpr std::size_t kSpread = 0x9e3779b97f4a7c15;  // 2^64 by the golden ratio
  std::size_t value = std::hash<WireId>{}(id.wire) ^ std::hash<PortId>{}(id.low.port);
  for (const Epoch epoch : {id.low.epoch, id.high.epoch, id.label.producer, id.label.address}) {
    value = (value ^ epoch) * kSpread;
    value ^= value >> 32;
  }
  return value;
}

ChannelId ChannelId::detour(const WireId& wire, const PortEpoch& from, const PortEpoch& to,
                            Label label) {
  CHECK(from.port == to.port && from.epoch < to.epoch, "epoch {} to {}", from.epoch, to.epoch);
  return {wire, from, to, label};
}

std::string_view to_text(PortState state) {
  switch (state) {
    case PortState::live:
      return "live";
    case PortState::held:
      return "held";
    case PortState::paused:
      return "paused";
    case PortState::forwarding:
      return "forwarding";
  }
  return "?";
}

std::string_view to_text(EventKind kind) {
  switch (kind) {
    case EventKind::prepared:
      return "prepared";
    case EventKind::moved_away:
      return "moved_away";
    case EventKind::peer_moved:
      return "peer_moved";
    case EventKind::peer_unknown:
      return "peer_unknown";
    case EventKind::session_needed:
      return "session_needed";
    case EventKind::overflow:
      return "overflow";
    case EventKind::wire_stopped:
      return "wire_stopped";
    case EventKind::wire_resumed:
      return "wire_resumed";
    case EventKind::superseded:
      return "superseded";
    case EventKind::path_changed:
      return "path_changed";
    case EventKind::path_lost:
      return "path_lost";
  }
  return "?";
}

}  // namespace godwit::wire
