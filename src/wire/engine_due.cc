// What an Engine does when the time has come: whoever is due is ticked, in the order ports, paths,
// channels. Each of them says by itself when he has something to do next (deadline()), and whatever
// changes that wakes him.
#include <fmt/format.h>

#include <algorithm>

#include "wire/engine.hh"
#include "wire/paths.hh"
#include "wire/port.hh"

namespace godwit::wire {

void Engine::wake(Port& port, Instant due) { ports_due_.wake(port, due); }
void Engine::wake(Channel& channel, Instant due) { channels_due_.wake(channel, due); }
void Engine::wake(Paths& paths, Instant due) { paths_due_.wake(paths, due); }

Instant Engine::next_tick() const {
  return std::min({ports_due_.next(), paths_due_.next(), channels_due_.next()});
}

void Engine::tick(Instant now) {
  const Call call(*this, now);
  ports_due_.run(now_, [this](Port& port) {
    ++ticked_;
    if (port.tick()) return;
    const PortEpoch id = port.id();
    erase_port(id);
    sink_.event({EventKind::moved_away, id.port, id.epoch, {}});
  });
  forget_peers();
  paths_due_.run(now_, [this](Paths& paths) {
    ++ticked_;
    paths.tick();
    refresh_route(paths.peer());
  });
  channels_due_.run(now_, [this](Channel& channel) {
    ++ticked_;
    if (!channel.is_over()) return channel.tick();
    const PortEpoch local = channel.local();
    erase_channel(channel);
    if (Port* owner = port(local)) wake(*owner, now_);  // it may want another, and had too many
  });
}

// It may be able to follow its peer now.
void Engine::wake_owner(const Channel& channel) {
  if (Port* owner = port(channel.local())) wake(*owner, now_);
}

// Those here of which one may have found the other, or lost it.
void Engine::wake_ends(const WireId& wire) {
  for (auto at = wired_.lower_bound({wire, {}}); at != wired_.end() && at->first == wire; ++at) {
    if (Port* end = port(at->second)) wake(*end, now_);
  }
}

// ---- what ends ----

void Engine::retire_channel(const ChannelId& id, Instant when) {
  if (Channel* channel = find_channel(id)) channel->retire(when);
}

void Engine::retire_channels(const PortEpoch& local) {
  for (Channel* each : channels_of(local)) each->retire(now_);
}

// Never from inside a channel: it might be the one.
void Engine::erase_retired(const PortEpoch& port) {
  const auto all = channels_of(port);
  std::vector<Channel*> over;
  std::ranges::copy_if(all, std::back_inserter(over), &Channel::is_over);
  for (Channel* each : over) erase_channel(*each);
}

// Hosts without a session for so long that no channel of any shard can use the path. They are
// looked for now and then.
void Engine::forget_peers() {
  if (peers_.size() <= kFewPeers || now_ < forget_next_) return;
  forget_next_ = now_ + limits_.key_life / 4;
  std::erase_if(peers_, [&](const auto& entry) {
    const Peer* candidate = &entry.second;
    if (candidate->up || candidate->channels > 0) return false;
    if (candidate->down_at && now_ - *candidate->down_at < limits_.key_life) return false;
    const auto is_its = [&](const auto& known) { return known.second == candidate; };
    std::erase_if(sources_, is_its);
    std::erase_if(tags_, is_its);
    reflexive_.erase(entry.first);
    return true;
  });
}

// ---- for tests ----

// Whoever is late already (the clock jumped, and he came from another shard) is ticked at once.
std::string Engine::overlooked() const {
  const auto is_overlooked = [&](auto& who) {
    return who.place().due() > std::max(who.deadline(), now_);
  };
  for (const auto& [id, port] : ports_) {
    if (!is_overlooked(*port)) continue;
    return fmt::format("{}: port {} in epoch {}, {}", self_, id.port.text(), id.epoch,
                       to_text(port->state()));
  }
  for (const auto& [id, channel] : channels_) {
    if (!is_overlooked(*channel)) continue;
    return fmt::format("{}: a {} of {} to {}", self_, id.is_detour() ? "detour" : "channel",
                       channel->local().port.text(), channel->host());
  }
  for (const auto& [host, peer] : peers_) {
    if (!peer.paths) continue;
    if (is_overlooked(*peer.paths)) return fmt::format("{}: paths to {}", self_, host);
    if (peer.paths->route() != peer.route) return fmt::format("{}: the route to {}", self_, host);
  }
  return {};
}

}  // namespace godwit::wire
