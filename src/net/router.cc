#include "net/router.hh"

#include <algorithm>

#include "net/ip_fragment.hh"
#include "net/refusal.hh"
#include "wire/vnet.hh"

namespace godwit::net {
namespace {

// Bytes of the longest packet that it becomes on the wire, and whether it is one as it is.
struct Length {
  std::size_t bytes = 0;
  bool is_super = false;
};
Length length_of(BytesView frame, const IpPacket& packet) {
  const wire::VnetHeader vnet = wire::read_vnet(frame.first<wire::kVnetBytes>());
  if (vnet.gso_type() == wire::GsoType::none) return {packet.end - packet.l3};
  const auto layout = wire::parse_super_frame(vnet, frame.subspan(wire::kVnetBytes));
  if (!layout) return {packet.end - packet.l3};
  return {layout->payload - layout->l3 + vnet.gso_size, true};
}

bool may_be_cut(BytesView frame, const IpPacket& packet) {
  return packet.is_ip4 && (frame[packet.l3 + 6] & std::byte{0x40}) == std::byte{0};
}

}  // namespace

void Router::handle(PortIndex from, std::span<const MutableBytes> frames, Instant now,
                    Outlet& out) {
  if (from >= ports_.size() || !ports_[from].exists) return;
  made_count_ = 0;
  for (const MutableBytes frame : frames) {
    PortCounters& counters = ports_[from].counters;
    ++counters.rx_frames;
    if (frame.size() >= wire::kMinFrameBytes) counters.rx_bytes += frame.size() - wire::kVnetBytes;
    if (const auto cause = receive(from, frame, now); !cause.empty()) ++counters.drops[cause];
  }
  flush(out);
}

void Router::flush(Outlet& out) {
  for (const PortIndex to : touched_) {
    out.send(to, ports_[to].outgoing);
    ports_[to].outgoing.clear();
  }
  touched_.clear();
  made_count_ = 0;
}

void Router::emit(PortIndex to, BytesView frame) {
  Port& port = ports_[to];
  if (port.outgoing.empty()) touched_.push_back(to);
  port.outgoing.push_back(frame);
  ++port.counters.tx_frames;
  port.counters.tx_bytes += frame.size() - wire::kVnetBytes;
}

Bytes& Router::made() {
  if (made_count_ == made_.size()) made_.emplace_back();
  return made_[made_count_++];
}

// Why it goes nowhere; empty: it does, or was for the router.
std::string_view Router::receive(PortIndex in, MutableBytes frame, Instant now) {
  if (frame.size() < kPayloadAt) return "short";
  const RouterPort& port = ports_[in].settings;
  const Mac to = mac_at(&frame[kMacsAt]);
  if (to != port.mac && to != port.shared_mac && !is_group(to)) return "mac";
  const auto type = from_big_endian<std::uint16_t>(&frame[kTypeAt]);
  if (type == kTypeArp) return take_arp(in, frame, now);
  if (type != kTypeIp4 && type != kTypeIp6) return "type";
  auto packet = read_ip_frame(frame);
  if (!packet) return "damaged";
  const Ip source = packet->source;
  if (source.is_multicast() || source.is_loopback() || is_own(source)) return "martian";
  Work work{.in = in, .frame = frame.first(packet->end), .packet = *packet, .now = now};
  if (is_for_it(work) && (is_group(to) || work.packet.destination.is_multicast())) {
    return take(work);
  }
  if (is_group(to)) return "group";
  if (tracker_) {
    const auto cause = tracker_->arrive(work.frame, work.packet, in, now, work.ticket);
    if (!cause.empty()) return cause;
  }
  if (!is_for_it(work)) return forward(work);
  if (const auto cause = leave(work, kItself); !cause.empty()) return cause;
  return take(work);
}

std::string_view Router::forward(Work& work) {
  const IpPacket& packet = work.packet;
  const bool is_near = packet.source.is_link_local() || packet.destination.is_link_local();
  if (is_near || packet.source.is_unspecified() || packet.destination.is_loopback()) {
    return "martian";
  }
  const auto drop = [&](IcmpError error, std::string_view cause, std::uint16_t mtu = 0) {
    if (tracker_) Tracker::undo(work.frame, work.packet, work.ticket);
    tell(error, mtu, work);
    return cause;
  };
  const auto hop = next_hop(packet.source, packet.destination);
  if (!hop) return drop(IcmpError::no_route, "no-route");
  if (packet.hops <= 1) return drop(IcmpError::hops_exceeded, "hops");
  const std::uint16_t mtu = ports_[hop->port].settings.mtu;
  const Length length = length_of(work.frame, packet);
  if (length.bytes > mtu && (length.is_super || !may_be_cut(work.frame, packet))) {
    return drop(IcmpError::too_big, "too-big", mtu);
  }
  if (const auto cause = leave(work, hop->port); !cause.empty()) return cause;
  set_hops(work.frame, packet, static_cast<std::uint8_t>(packet.hops - 1));
  return transmit(*hop, work.frame, packet, work.now);
}

// The rules'.
std::string_view Router::leave(Work& work, PortIndex out) {
  if (!tracker_) return {};
  const Ip own = out == kItself ? Ip{} : own_at(out, work.packet.is_ip4);
  const auto cause = tracker_->leave(work.frame, work.packet, work.ticket, out, own, work.now);
  if (cause == "reject") {
    Bytes& answer = made();
    if (refuse(work.frame, work.packet, own_at(work.in, work.packet.is_ip4), answer)) {
      write_mac(ports_[work.in].settings.mac, &answer[kMacsAt + 6]);
      emit(work.in, answer);
    }
  }
  return cause;
}

std::string_view Router::transmit(const NextHop& hop, MutableBytes frame, const IpPacket& packet,
                                  Instant now) {
  const std::uint16_t mtu = ports_[hop.port].settings.mtu;
  if (length_of(frame, packet).bytes <= mtu) return emit_to(hop, frame, now);
  std::string_view cause;
  finish_checksum(frame);
  fragment_ip4(frame, packet, mtu, [&](BytesView piece) {
    Bytes& copy = made();
    copy.assign(piece.begin(), piece.end());
    if (const auto why = emit_to(hop, copy, now); !why.empty()) cause = why;
  });
  return cause;
}

std::string_view Router::emit_to(const NextHop& hop, MutableBytes frame, Instant now) {
  write_mac(ports_[hop.port].settings.mac, &frame[kMacsAt + 6]);
  const Neighbours::Key who{hop.port, hop.ip};
  if (const auto mac = neighbours_.find(who)) {
    write_mac(*mac, &frame[kMacsAt]);
    emit(hop.port, frame);
    return {};
  }
  switch (neighbours_.wait(who, frame, now)) {
    case Neighbours::Waits::ask:
      ask(hop.port, hop.ip, std::nullopt);
      return {};
    case Neighbours::Waits::waits:
      return {};
    case Neighbours::Waits::full:
      return "unresolved";
  }
  return {};
}

std::optional<Router::NextHop> Router::next_hop(Ip source, Ip destination) const {
  RouteTable::Value found = RouteTable::kNone;
  for (const Policy& policy : policies_) {
    if (policy.from.contains(source)) found = policy.table.find(destination);
    if (found != RouteTable::kNone) break;
  }
  if (found == RouteTable::kNone) found = routes_.find(destination);
  if (found == RouteTable::kNone || !hops_[found].port) return std::nullopt;
  return NextHop{*hops_[found].port, hops_[found].via.value_or(destination)};
}

Ip Router::own_at(PortIndex port, bool is_ip4) const {
  for (const IpPrefix& each : ports_[port].settings.addresses) {
    if (each.address.is4() == is_ip4) return each.address;
  }
  return {};
}

// As whom it was for, if that is an address of the router's (RFC 4443, 2.2).
void Router::tell(IcmpError error, std::uint16_t mtu, const Work& work) {
  const double passed = std::chrono::duration<double>(work.now - errors_refilled_).count();
  error_tokens_ = std::min(error_tokens_ + passed * kErrorsPerSecond, kErrorBurst);
  errors_refilled_ = work.now;
  const Ip own = is_own(work.packet.destination) ? work.packet.destination
                                                 : own_at(work.in, work.packet.is_ip4);
  if (own == Ip{} || error_tokens_ < 1 || !may_tell_error(work.frame, work.packet)) return;
  error_tokens_ -= 1;
  Bytes& answer = made();
  write_icmp_error(error, mtu, work.frame, work.packet, own, ports_[work.in].settings.mac, answer);
  emit(work.in, answer);
}

std::vector<PortCounters> Router::counters() const {
  std::vector<PortCounters> all;
  for (const Port& port : ports_) all.push_back(port.counters);
  return all;
}

}  // namespace godwit::net
