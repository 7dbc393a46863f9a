#include "net/dhcp_server.hh"

#include <algorithm>

#include "base/check.hh"
#include "net/arp.hh"
#include "net/icmp.hh"

namespace godwit::net {
namespace {

constexpr Nanoseconds kOffered = seconds(60);     // an address waits so long for its client
constexpr Nanoseconds kDeclined = seconds(3600);  // somebody else was seen to have it
constexpr Nanoseconds kLook = seconds(30);        // for what has ended
constexpr std::uint32_t kLeastLease = 60;

bool is_in(const DhcpNetwork& network, Ip address) {
  return network.first <= address && address <= network.last;
}
bool has_range(const DhcpNetwork& network) { return network.first != Ip{}; }

Result<> check_network(const DhcpNetwork& network) {
  const std::string text = network.prefix.text();
  if (!network.prefix.address.is4()) return fail("{}: DHCP here is for IPv4", text);
  if (!network.prefix.is_network() || network.prefix.length > 30) {
    return fail("{} is no network of hosts, like 10.7.0.0/24", text);
  }
  if (network.lease_s < kLeastLease) return fail("{}: a lease is at least a minute", text);
  if (has_range(network)) {
    if (!network.prefix.contains(network.first) || !network.prefix.contains(network.last) ||
        network.last < network.first) {
      return fail("{}: {} to {} is no range of it", text, network.first.text(),
                  network.last.text());
    }
    if (network.last.low - network.first.low >= kMostLeases) {
      return fail("{}: a range has at most {} addresses", text, kMostLeases);
    }
  }
  for (const Ip& dns : network.options.dns) {
    if (!dns.is4()) return fail("{}: {} is not of IPv4", text, dns.text());
  }
  if (const auto& router = network.options.router; router && !network.prefix.contains(*router)) {
    return fail("{}: the router {} is not in it", text, router->text());
  }
  for (const DhcpRoute& route : network.options.routes) {
    if (!route.to.address.is4() || !network.prefix.contains(route.via)) {
      return fail("{}: the way to {}, {}, is not in it", text, route.to.text(), route.via.text());
    }
  }
  return {};
}

}  // namespace

Result<> check(const DhcpConfig& config) {
  if (!config.address.address.is4() || config.address.length < 8 || config.address.length > 30) {
    return fail("a DHCP server has an address with its network's length, like 10.7.0.2/24");
  }
  if (config.networks.empty()) return fail("a DHCP server has a network to serve");
  for (const DhcpNetwork& network : config.networks) {
    if (auto good = check_network(network); !good) return good;
    const auto same = [&](const DhcpNetwork& other) {
      return other.prefix.contains(network.prefix.address) ||
             network.prefix.contains(other.prefix.address);
    };
    if (std::ranges::count_if(config.networks, same) > 1) {
      return fail("network {} is there twice", network.prefix.text());
    }
  }
  std::set<Ip> addresses;
  for (const DhcpReservation& each : config.reservations) {
    const bool is_inside = std::ranges::any_of(config.networks, [&](const auto& network) {
      return network.prefix.contains(each.address);
    });
    if (!is_inside) return fail("{} is in none of the networks", each.address.text());
    if (!addresses.insert(each.address).second) {
      return fail("{} is reserved twice", each.address.text());
    }
  }
  return {};
}

DhcpServer::DhcpServer(DhcpConfig config) { configure(std::move(config)); }

void DhcpServer::configure(DhcpConfig config) {
  CHECK(check(config), "a configuration that was not checked");
  config_ = std::move(config);
  reserved_.clear();
  for (const DhcpReservation& each : config_.reservations) reserved_[each.address] = each.mac;
  std::vector<Ip> gone;
  for (const auto& [address, lease] : leases_) {
    if (!has_place_for(lease)) gone.push_back(address);
  }
  for (const Ip& address : gone) forget(address);
}

bool DhcpServer::has_place_for(const DhcpLease& lease) const {
  const auto reserved = reserved_.find(lease.address);
  if (reserved != reserved_.end()) return reserved->second == lease.mac;
  return std::ranges::any_of(
      config_.networks, [&](const DhcpNetwork& network) { return is_in(network, lease.address); });
}

void DhcpServer::handle(PortIndex from, std::span<const MutableBytes> frames, Instant now,
                        Outlet& out) {
  if (from != config_.port) return;
  for (const MutableBytes frame : frames) {
    ++counters_.rx_frames;
    if (frame.size() >= wire::kMinFrameBytes) counters_.rx_bytes += frame.size() - wire::kVnetBytes;
    if (const auto cause = receive(frame, now); !cause.empty()) ++counters_.drops[cause];
  }
  const std::vector<BytesView> views(outgoing_.begin(), outgoing_.end());
  if (!views.empty()) out.send(config_.port, views);
  outgoing_.clear();
}

void DhcpServer::send(Bytes frame) {
  ++counters_.tx_frames;
  counters_.tx_bytes += frame.size() - wire::kVnetBytes;
  outgoing_.push_back(std::move(frame));
}

std::string_view DhcpServer::receive(MutableBytes frame, Instant now) {
  if (frame.size() < kPayloadAt) return "short";
  const Mac destination = mac_at(&frame[kMacsAt]);
  if (destination != config_.mac && destination != kBroadcast) return "mac";
  if (const auto arp = read_arp(frame)) {
    if (!arp->is_request || arp->target != config_.address.address) return {};
    Bytes made;
    write_arp_answer(*arp, config_.mac, config_.mac, made);
    send(std::move(made));
    return {};
  }
  const auto packet = read_ip_frame(frame);
  if (!packet || !packet->is_ip4) return "type";
  if (packet->protocol == kUdp && packet->has_l4(frame, kUdpBytes) &&
      from_big_endian<std::uint16_t>(&frame[packet->l4 + 2]) == kDhcpServerPort) {
    return serve(frame, *packet, now);
  }
  if (packet->destination != config_.address.address) return "not-mine";
  if (answer_echo(frame, *packet)) {
    send(to_bytes(frame));
    return {};
  }
  return "no-port";
}

const DhcpNetwork* DhcpServer::network_of(const DhcpRequest& request) const {
  const Ip at = !request.relay.is_unspecified()    ? request.relay
                : !request.client.is_unspecified() ? request.client
                                                   : config_.address.address;
  const auto found = std::ranges::find_if(
      config_.networks, [&](const auto& network) { return network.prefix.contains(at); });
  return found != config_.networks.end() ? &*found : nullptr;
}

std::string_view DhcpServer::serve(BytesView frame, const IpPacket& packet, Instant now) {
  const auto request =
      read_dhcp(frame.subspan(packet.l4 + kUdpBytes, packet.end - packet.l4 - kUdpBytes));
  if (!request) return "damaged";
  const DhcpNetwork* network = network_of(*request);
  if (network == nullptr) return "no-network";
  const auto decided = decide(*request, *network, now);
  if (!decided) return {};
  answer(frame, *request, *decided, *network);
  return decided->type == DhcpType::nak ? std::string_view("refused") : std::string_view();
}

// Empty: nothing is said.
std::optional<DhcpAnswer> DhcpServer::decide(const DhcpRequest& request, const DhcpNetwork& network,
                                             Instant now) {
  const auto has = by_client_.find(request.identifier);
  switch (request.type) {
    case DhcpType::discover:
      return offer(request, network, now);
    case DhcpType::request:
      return confirm(request, network, now);
    case DhcpType::decline:
      if (has != by_client_.end() && request.requested == has->second) {
        const Ip address = has->second;
        forget(address);
        leases_[address] = {.state = DhcpLease::State::declined,
                            .address = address,
                            .mac = request.mac,
                            .ends = now + kDeclined};
        account_.changed(address);
        ++changes_;
      }
      return std::nullopt;
    case DhcpType::release:
      if (has != by_client_.end() && request.client == has->second) forget(has->second);
      return std::nullopt;
    case DhcpType::inform:
      return DhcpAnswer{.type = DhcpType::ack, .server = config_.address.address};
    default:
      return std::nullopt;
  }
}

std::optional<DhcpAnswer> DhcpServer::offer(const DhcpRequest& request, const DhcpNetwork& network,
                                            Instant now) {
  const auto address = choose(request, network, now);
  if (!address) return std::nullopt;
  const auto known = leases_.find(*address);
  if (known == leases_.end() || known->second.state != DhcpLease::State::bound) {
    keep(request, *address, DhcpLease::State::offered, now + kOffered);
  }
  return DhcpAnswer{.type = DhcpType::offer,
                    .yours = *address,
                    .server = config_.address.address,
                    .lease_s = network.lease_s};
}

// RFC 2131, 4.3.2. Of a lease that is not known (this server was restarted, or is new) the client
// gets what it says it has, if nobody else has it: silence would make it stop.
std::optional<DhcpAnswer> DhcpServer::confirm(const DhcpRequest& request,
                                              const DhcpNetwork& network, Instant now) {
  const Ip own = config_.address.address;
  if (request.server && *request.server != own) {  // it takes another's
    const auto has = by_client_.find(request.identifier);
    if (has != by_client_.end() && leases_[has->second].state == DhcpLease::State::offered) {
      forget(has->second);
    }
    return std::nullopt;
  }
  const Ip address = request.requested.value_or(request.client);
  if (!may_have(request, network, address, now)) {
    return DhcpAnswer{.type = DhcpType::nak,
                      .yours = Ip::of4(0),
                      .server = own,
                      .why = "this address is not yours"};
  }
  keep(request, address, DhcpLease::State::bound, now + seconds(network.lease_s));
  return DhcpAnswer{
      .type = DhcpType::ack, .yours = address, .server = own, .lease_s = network.lease_s};
}

const DhcpReservation* DhcpServer::reserved_for(Mac mac, const DhcpNetwork& network) const {
  const auto found = std::ranges::find_if(config_.reservations, [&](const auto& each) {
    return each.mac == mac && network.prefix.contains(each.address);
  });
  return found != config_.reservations.end() ? &*found : nullptr;
}

bool DhcpServer::may_have(const DhcpRequest& request, const DhcpNetwork& network, Ip address,
                          Instant now) const {
  if (const auto* reservation = reserved_for(request.mac, network)) {
    return reservation->address == address;
  }
  if (!is_in(network, address) || reserved_.contains(address)) return false;
  if (address == config_.address.address || network.options.router == address) return false;
  const auto lease = leases_.find(address);
  return lease == leases_.end() || lease->second.ends <= now ||
         (lease->second.identifier == request.identifier &&
          lease->second.state != DhcpLease::State::declined);
}

// Its own, the one it asks for, or the first free one from where its name hashes to: the same again
// even if its lease was forgotten.
std::optional<Ip> DhcpServer::choose(const DhcpRequest& request, const DhcpNetwork& network,
                                     Instant now) const {
  if (const auto* reservation = reserved_for(request.mac, network)) return reservation->address;
  const auto may = [&](Ip address) { return may_have(request, network, address, now); };
  if (const auto has = by_client_.find(request.identifier);
      has != by_client_.end() && may(has->second)) {
    return has->second;
  }
  if (request.requested && may(*request.requested)) return request.requested;
  if (!has_range(network)) return std::nullopt;
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const std::byte byte : request.identifier) {
    hash = (hash ^ std::to_integer<std::uint64_t>(byte)) * 0x100000001b3;  // FNV-1a
  }
  const std::uint64_t count = network.last.low - network.first.low + 1;
  for (std::uint64_t i = 0; i < count; ++i) {
    const Ip address{0, network.first.low + (hash + i) % count};
    if (may(address)) return address;
  }
  return std::nullopt;
}

void DhcpServer::keep(const DhcpRequest& request, Ip address, DhcpLease::State state,
                      Instant ends) {
  if (const auto has = by_client_.find(request.identifier);
      has != by_client_.end() && has->second != address) {
    forget(has->second);
  }
  if (leases_.contains(address)) forget(address);
  leases_[address] = {.state = state,
                      .address = address,
                      .mac = request.mac,
                      .identifier = request.identifier,
                      .host = request.host,
                      .ends = ends};
  by_client_[request.identifier] = address;
  account_.changed(address);
  if (state == DhcpLease::State::bound) ++changes_;
}

void DhcpServer::forget(Ip address) {
  const auto found = leases_.find(address);
  if (found == leases_.end()) return;
  if (found->second.state != DhcpLease::State::offered) ++changes_;
  by_client_.erase(found->second.identifier);
  leases_.erase(found);
  account_.removed(address);
}

// RFC 2131, 4.1. To a relay by the way that its request came.
void DhcpServer::answer(BytesView frame, const DhcpRequest& request, const DhcpAnswer& answer,
                        const DhcpNetwork& network) {
  Bytes payload, made;
  write_dhcp(request, answer, answer.type == DhcpType::nak ? nullptr : &network.options, payload);
  IpEnds ends{.source_mac = config_.mac,
              .destination_mac = request.mac,
              .source = config_.address.address,
              .destination = answer.yours};
  std::uint16_t port = kDhcpClientPort;
  if (!request.relay.is_unspecified()) {
    ends.destination_mac = mac_at(&frame[kMacsAt + 6]);
    ends.destination = request.relay;
    port = kDhcpServerPort;
  } else if (answer.type == DhcpType::nak) {
    ends.destination_mac = kBroadcast;
    ends.destination = Ip::of4(0xffffffff);
  } else if (!request.client.is_unspecified()) {
    ends.destination_mac = mac_at(&frame[kMacsAt + 6]);
    ends.destination = request.client;
  } else if (request.wants_broadcast()) {
    ends.destination_mac = kBroadcast;
    ends.destination = Ip::of4(0xffffffff);
  }
  write_udp(ends, kDhcpServerPort, port, payload, made);
  send(std::move(made));
}

Instant DhcpServer::tick(Instant now, Outlet& /*out*/) {
  std::vector<Ip> gone;
  for (const auto& [address, lease] : leases_) {
    if (lease.ends <= now) gone.push_back(address);
  }
  for (const Ip& address : gone) forget(address);
  return now + kLook;
}

std::vector<PortCounters> DhcpServer::counters() const {
  std::vector<PortCounters> all(config_.port + std::size_t{1});
  all.back() = counters_;
  return all;
}

std::vector<DhcpLease> DhcpServer::leases() const {
  std::vector<DhcpLease> all;
  for (const auto& [address, lease] : leases_) all.push_back(lease);
  return all;
}

void DhcpServer::restore(const std::vector<DhcpLease>& leases) {
  for (const DhcpLease& lease : leases) {
    leases_[lease.address] = lease;
    if (!lease.identifier.empty()) by_client_[lease.identifier] = lease.address;
  }
  configure(config_);
}

}  // namespace godwit::net
