// What `wire ls` and the metrics show of a port.
#include "wire/channel.hh"
#include "wire/port.hh"

namespace godwit::wire {

void Channel::add_drops(Drops& drops) const {
  for (const auto& [cause, count] : of_old_keys_) drops[cause] += count;
  drops["unkeyed"] += counters_.unkeyed;
  drops["expired"] += counters_.expired;
  if (tx_) tx_->sealer.counters().add_to(drops);
  for (const Inbound& rx : rx_) rx.opener->counters().add_to(drops);
}

WireStats Port::wire_stats() const {
  WireStats stats;
  stats.wire = wire_->id;
  stats.local = config_.id;
  stats.remote = wire_->remote;
  stats.remote_host = peer_.host;
  stats.epoch = config_.epoch;
  stats.remote_epoch = peer_.epoch;
  stats.tx_frames = counters_.tx_frames;
  stats.tx_bytes = counters_.tx_bytes;
  stats.rx_frames = counters_.rx_frames;
  stats.rx_bytes = counters_.rx_bytes;
  stats.drops = of_old_channels_;
  stats.drops["unwired"] += counters_.unwired;
  stats.drops["not_live"] += counters_.not_live;
  stats.drops["no_peer"] += counters_.no_peer;
  stats.drops["no_channel"] += counters_.no_channel;
  stats.drops["bad_size"] += counters_.bad_size;
  stats.drops["held_full"] += intake_.counters().dropped;
  fabric_->add_drops(id(), stats.drops);
  if (is_here(peer_)) {
    stats.state = beside(peer_) != nullptr ? "local" : "connecting";
  } else if (Channel* channel = existing_channel_to(peer_)) {
    stats.state = channel->stopped() ? "stopped" : channel->confirmed() ? "up" : "connecting";
    stats.rtt = channel->rtt();
    stats.generation = channel->generation();
    const Route& route = channel->peer().route;
    stats.path = route.target;
    stats.via = route.via;
    stats.path_state = route.state;
    stats.path_mtu = route.mtu;
  } else {
    stats.state = "connecting";
  }
  std::erase_if(stats.drops, [](const auto& drop) { return drop.second == 0; });
  return stats;
}

PortStats Port::port_stats() const {
  PortStats stats;
  stats.id = id();
  stats.state = state_;
  stats.held_frames = intake_.held_frames();
  stats.held_bytes = intake_.held_bytes();
  stats.held_total = intake_.counters().held;
  stats.held_dropped = intake_.counters().dropped;
  stats.forwarded = counters_.forwarded;
  stats.waits_expired = intake_.counters().forced + counters_.incomplete_ends;
  return stats;
}

}  // namespace godwit::wire
