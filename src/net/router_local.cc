// What is for the router itself, and what it says of its own accord.
#include <algorithm>

#include "net/dhcp_relay.hh"
#include "net/refusal.hh"
#include "net/router.hh"

namespace godwit::net {
namespace {

constexpr Nanoseconds kTick = seconds(1);
constexpr Nanoseconds kAdvertise = seconds(200);  // RFC 4861, 6.2.1: at least thrice a lifetime
constexpr std::uint16_t kLifetime = 1800;
const Ip kAllNodes{0xff02000000000000, 1}, kAllRouters{0xff02000000000000, 2};
const Ip kAll4 = Ip::of4(0xffffffff), kNone4 = Ip::of4(0);

Mac said_by(const RouterPort& port) { return port.shared_mac.value_or(port.mac); }

}  // namespace

// Also what is for all of a network: broadcasts, groups that it is in.
bool Router::is_for_it(const Work& work) const {
  const Ip to = work.packet.destination;
  if (is_own(to) || to == kAll4 || to == kAllNodes || to == kAllRouters) return true;
  const RouterPort& port = ports_[work.in].settings;
  if (to.is_link_local()) {
    return to == link_local_of(port.mac) || to == link_local_of(said_by(port));
  }
  if (to.is_multicast()) return !to.is4() && (to.high >> 48 & 0xf) == 2;
  return std::ranges::any_of(port.addresses, [&](const IpPrefix& each) {
    if (!each.address.is4() || each.length >= 31 || !each.contains(to)) return false;
    const std::uint32_t hosts = ~std::uint32_t{0} >> each.length;
    return (to.as4() & hosts) == hosts;
  });
}

std::string_view Router::take(Work& work) {
  const IpPacket& packet = work.packet;
  if (const auto found = read_discovery(work.frame, packet)) return take_discovery(work, *found);
  const bool is_udp = packet.protocol == kUdp && packet.has_l4(work.frame, kUdpBytes);
  if (is_udp && packet.is_ip4 &&
      from_big_endian<std::uint16_t>(&work.frame[packet.l4 + 2]) == kDhcpServerPort) {
    return take_dhcp(work);
  }
  const bool is_one = is_own(packet.destination) || packet.destination.is_link_local();
  if (!is_one) return "not-mine";
  if (answer_echo(work.frame, packet)) {
    write_mac(ports_[work.in].settings.mac, &work.frame[kMacsAt + 6]);
    emit(work.in, work.frame);
    return {};
  }
  if (packet.protocol == kTcp) {
    Bytes& answer = made();
    if (refuse(work.frame, packet, {}, answer)) emit(work.in, answer);
  } else if (packet.protocol == kUdp) {
    tell(IcmpError::no_port, 0, work);
  }
  return "no-port";
}

// ---- who has an address ----

bool Router::answers_for(PortIndex index, Ip ip) const {
  const RouterPort& port = ports_[index].settings;
  if (ip.is_link_local()) {
    return !ip.is4() && (ip == link_local_of(port.mac) || ip == link_local_of(said_by(port)));
  }
  const bool has_it = std::ranges::any_of(
      port.addresses, [ip](const IpPrefix& each) { return each.address == ip; });
  if (has_it || !port.is_proxy || ip.is_multicast() || ip.is_unspecified()) return has_it;
  const auto hop = next_hop(ip, ip);
  return hop && hop->port != index;
}

void Router::learn(PortIndex port, Ip ip, Mac mac, bool is_new, Instant now) {
  if (is_group(mac) || mac == 0 || ip.is_unspecified() || is_own(ip)) return;
  for (Bytes& waited : neighbours_.learn({port, ip}, mac, is_new, now)) {
    Bytes& frame = made();
    frame = std::move(waited);
    write_mac(mac, &frame[kMacsAt]);
    emit(port, frame);
  }
}

// RFC 826: who asks is known from then on, if he asks for the router.
std::string_view Router::take_arp(PortIndex in, BytesView frame, Instant now) {
  const auto arp = read_arp(frame);
  if (!arp) return "damaged";
  const RouterPort& port = ports_[in].settings;
  const bool is_for_it = arp->is_request && answers_for(in, arp->target);
  const bool is_near = std::ranges::any_of(
      port.addresses, [&](const IpPrefix& each) { return each.contains(arp->sender); });
  if (is_near) learn(in, arp->sender, arp->sender_mac, is_for_it, now);
  if (!is_for_it || arp->sender == arp->target) return {};
  Bytes& answer = made();
  const Mac mac = is_own(arp->target) ? said_by(port) : port.mac;
  write_arp_answer(*arp, mac, port.mac, answer);
  emit(in, answer);
  return {};
}

// RFC 4861, 7.2; RFC 4862, 5.4 for questions of who has no address yet.
std::string_view Router::take_discovery(Work& work, const Discovery& found) {
  const Ip source = work.packet.source;
  const RouterPort& port = ports_[work.in].settings;
  if (found.type == Discovery::router_solicitation) {
    if (!port.advertises) return {};
    if (found.mac && !source.is_unspecified()) learn(work.in, source, *found.mac, true, work.now);
    const bool has_address = found.mac && !source.is_unspecified();
    advertise(work.in, has_address ? source : kAllNodes,
              has_address ? *found.mac : mac_of_group(kAllNodes), kLifetime);
    return {};
  }
  if (found.type == Discovery::advertisement) {
    if (found.mac) learn(work.in, found.target, *found.mac, false, work.now);
    return {};
  }
  if (!answers_for(work.in, found.target)) return {};
  const bool has_address = !source.is_unspecified();
  if (has_address && found.mac) learn(work.in, source, *found.mac, true, work.now);
  const Ip to = has_address ? source : kAllNodes;
  const Mac to_mac = has_address ? mac_at(&work.frame[kMacsAt + 6]) : mac_of_group(kAllNodes);
  const Mac mac = found.target == link_local_of(port.mac) ? port.mac : said_by(port);
  Bytes& answer = made();
  write_advertisement({.source_mac = port.mac,
                       .destination_mac = to_mac,
                       .source = found.target,
                       .destination = to},
                      found.target, mac, has_address, answer);
  emit(work.in, answer);
  return {};
}

// Of an address that is shared, nobody is told who asks: hosts would take it for where the gateway
// is. They answer nevertheless.
void Router::ask(PortIndex index, Ip ip, std::optional<Mac> mac) {
  const RouterPort& port = ports_[index].settings;
  Bytes& question = made();
  if (ip.is4()) {
    Ip own = kNone4;
    for (const IpPrefix& each : port.addresses) {
      if (each.contains(ip) && !port.shared_mac) own = each.address;
    }
    write_arp({.sender_mac = port.mac, .sender = own, .target = ip}, mac.value_or(kBroadcast),
              port.mac, question);
  } else {
    const Ip group = solicited_group_of(ip);
    write_solicitation({.source_mac = port.mac,
                        .destination_mac = mac.value_or(mac_of_group(group)),
                        .source = link_local_of(port.mac),
                        .destination = mac ? ip : group},
                       ip, question);
  }
  emit(index, question);
}

// ---- DHCP ----

std::string_view Router::take_dhcp(Work& work) {
  const IpPacket& packet = work.packet;
  const MutableBytes payload =
      work.frame.subspan(packet.l4 + kUdpBytes, packet.end - packet.l4 - kUdpBytes);
  const auto& server = ports_[work.in].settings.dhcp_relay;
  if (server && relay_request(payload, own_at(work.in, true))) {
    write_udp({.source = own_at(work.in, true), .destination = *server}, kDhcpServerPort,
              kDhcpServerPort, payload, made());
    send_own(made_[made_count_ - 1], work.now);
    return {};
  }
  const auto answer = read_relayed_answer(payload);
  if (!answer || !is_own(packet.destination)) return "no-port";
  for (PortIndex index = 0; index < ports_.size(); ++index) {
    const RouterPort& port = ports_[index].settings;
    const bool is_there = std::ranges::any_of(
        port.addresses, [&](const IpPrefix& each) { return each.address == answer->relay; });
    // Nobody else says which addresses hosts there get.
    if (!is_there || port.dhcp_relay != packet.source) continue;
    Bytes& relayed = made();
    write_udp({.source_mac = port.mac,
               .destination_mac = answer->mac,
               .source = answer->relay,
               .destination = answer->to},
              kDhcpServerPort, kDhcpClientPort, payload, relayed);
    emit(index, relayed);
    return {};
  }
  return "no-port";
}

// By its routes, past its rules.
void Router::send_own(MutableBytes frame, Instant now) {
  const auto packet = read_ip_frame(frame);
  if (!packet) return;
  if (const auto hop = next_hop(packet->source, packet->destination)) {
    transmit(*hop, frame, *packet, now);
  }
}

// To whom it came from, that its neighbour does not answer; through the rules, as he may be
// translated.
void Router::tell_lost(BytesView frame, Instant now) {
  auto packet = read_ip_frame(frame);
  if (!packet || !may_tell_error(frame, *packet)) return;
  const auto hop = next_hop(packet->source, packet->source);
  const Ip own = hop ? own_at(hop->port, packet->is_ip4) : Ip{};
  if (own == Ip{}) return;
  Bytes& answer = made();
  write_icmp_error(IcmpError::no_host, 0, frame, *packet, own, 0, answer);
  auto said = read_ip_frame(answer);
  Ticket ticket;
  if (tracker_ && !tracker_->arrive(answer, *said, kItself, now, ticket).empty()) return;
  send_own(answer, now);
}

// ---- time ----

// That these addresses are here: switches and neighbours have it from somewhere else, perhaps.
void Router::announce(PortIndex index) {
  const RouterPort& port = ports_[index].settings;
  for (const IpPrefix& each : port.addresses) {
    const Ip ip = each.address;
    Bytes& said = made();
    if (ip.is4()) {
      write_arp({.sender_mac = said_by(port), .sender = ip, .target = ip}, kBroadcast, port.mac,
                said);
    } else {
      write_advertisement({.source_mac = port.mac,
                           .destination_mac = mac_of_group(kAllNodes),
                           .source = ip,
                           .destination = kAllNodes},
                          ip, said_by(port), false, said);
    }
    emit(index, said);
  }
}

void Router::advertise(PortIndex index, Ip to, Mac to_mac, std::uint16_t lifetime_s) {
  const RouterPort& port = ports_[index].settings;
  RouterAdvertisement told{
      .mac = said_by(port), .mtu = port.mtu, .lifetime_s = lifetime_s, .dns = port.dns};
  for (const IpPrefix& each : port.addresses) {
    if (!each.address.is4()) told.prefixes.push_back(each);
  }
  Bytes& said = made();
  write_router_advertisement({.source_mac = port.mac,
                              .destination_mac = to_mac,
                              .source = link_local_of(said_by(port)),
                              .destination = to},
                             told, said);
  emit(index, said);
}

Instant Router::tick(Instant now, Outlet& out) {
  made_count_ = 0;
  for (PortIndex index = 0; index < ports_.size(); ++index) {
    Port& port = ports_[index];
    if (!port.exists) continue;
    if (!port.is_announced) announce(index);
    if (port.settings.advertises && (!port.is_announced || port.advertise_at <= now)) {
      advertise(index, kAllNodes, mac_of_group(kAllNodes), kLifetime);
      port.advertise_at = now + kAdvertise;
    }
    port.is_announced = true;
  }
  std::vector<std::pair<Neighbours::Key, Bytes>> lost;
  for (const auto& [who, mac] : neighbours_.tick(now, lost)) ask(who.port, who.ip, mac);
  for (auto& [who, frame] : lost) {
    ++ports_[who.port].counters.drops["unresolved"];
    tell_lost(frame, now);
  }
  const Instant next = tracker_ ? tracker_->tick(now) : now + kTick;
  flush(out);
  return std::min(next, now + kTick);
}

}  // namespace godwit::net
