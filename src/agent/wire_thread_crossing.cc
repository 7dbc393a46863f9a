// What goes from one wire thread to another: frames between a component and a port that are in
// different ones, datagrams, which the first receives for all, and ports and components themselves.
#include <algorithm>
#include <array>

#include "agent/wire_thread.hh"

namespace godwit::agent {

// ---- frames of components ----

void WireThread::to_component(const PortId& port, std::span<const BytesView> frames) {
  if (keep(port, true, frames) || components_.take(port, frames)) return;
  if (!cross(port, true, frames)) tap_refused_ += frames.size();
}

void WireThread::from_component(const PortId& port, std::span<const BytesView> frames,
                                Instant now) {
  if (keep(port, false, frames) || cross(port, false, frames)) return;
  engine_.frames_from_port(port, frames, now);
}

// Also what could go on within this thread: others may be kept that came before.
bool WireThread::keep(const PortId& port, bool to_component, std::span<const BytesView> frames) {
  if (holding_.empty() || !holding_.contains(port)) return false;
  held_.add(port, to_component, frames);
  return true;
}

// False: it does not go to another thread.
bool WireThread::cross(const PortId& port, bool to_component, std::span<const BytesView> frames) {
  if (ways_.empty()) return false;
  const auto way = ways_.find(port);
  if (way == ways_.end()) return false;
  const std::uint16_t to = to_component ? way->second.component : way->second.port;
  if (to == index_) return false;
  if (crossings_->is_overfull()) return crossing_dropped_ += frames.size(), true;
  auto& crossing = outgoing_[to];
  if (!crossing) crossing = crossings_->take();
  crossing->add(port, to_component, frames);
  return true;
}

void WireThread::send_crossings() {
  if (outgoing_.empty()) return;
  for (auto& [to, full] : outgoing_) {
    crossings_->sent(full->bytes.size());
    WireThread& taker = *all_[to];
    taker.post([this, &taker, from = crossings_, crossing = std::move(full)](Instant) mutable {
      taker.crossed(*crossing);
      if (from->give_back(std::move(crossing))) post([this](Instant) { watch_taps(); });
    });
  }
  outgoing_.clear();
  if (crossings_->is_full()) watch_taps();
}

void WireThread::crossed(const Crossing& crossing) {
  std::array<BytesView, 64> views;
  std::size_t frame = 0, begin = 0;
  for (const Crossing::Parcel& parcel : crossing.parcels) {
    for (std::size_t left = parcel.frames; left > 0;) {
      const std::size_t count = std::min(left, views.size());
      for (std::size_t i = 0; i < count; ++i) {
        const std::size_t end = crossing.ends[frame++];
        views[i] = BytesView(crossing.bytes).subspan(begin, end - begin);
        begin = end;
      }
      const auto frames = std::span(views).first(count);
      parcel.to_component ? to_component(parcel.port, frames)
                          : from_component(parcel.port, frames, loop_.now());
      left -= count;
    }
  }
}

// ---- ports and components that change the thread ----

void WireThread::hold(const Ways& ways, std::function<void()> done) {
  post([this, ways, done = std::move(done)](Instant) {
    for (const auto& [port, way] : ways) holding_.insert(port);
    is_holding_ = true;
    watch_socket();
    done();
  });
}

void WireThread::use_ways(const Ways& ways) {
  post([this, ways](Instant) {
    use(ways);
    holding_.clear();
    crossed(std::exchange(held_, {}));
    if (std::exchange(is_holding_, false)) watch_socket();
  });
}

void WireThread::use(const Ways& ways) {
  for (const auto& [port, way] : ways) {
    ways_.erase(port);
    if (way.port != way.component) ways_[port] = way;
  }
}

void WireThread::hand_on(std::vector<PortId> ports, std::vector<ComponentId> components,
                         std::uint16_t to, const Ways& ways, std::function<void()> done) {
  post([this, ports = std::move(ports), components = std::move(components), to, ways,
        done = std::move(done)](Instant now) {
    auto luggage = std::make_shared<Luggage>();
    luggage->unit = engine_.take(ports, now);
    if (to != 0) tell_indices(luggage->unit->indices(), to);
    for (const PortId& port : ports) {
      auto attached = attached_.extract(port);
      if (attached.empty()) continue;
      attached.mapped().watch.reset();
      luggage->attached.insert(std::move(attached));
    }
    for (const ComponentId& id : components) {
      if (components_.find(id) != nullptr) luggage->components[id] = components_.take_out(id);
    }
    use(ways);
    WireThread& taker = *all_[to];
    taker.post([&taker, luggage, ways](Instant) { taker.board(*luggage, ways); });
    done();
  });
}

// To the first, which receives for all: at once if that is this one.
void WireThread::tell_indices(std::vector<std::uint32_t> indices, std::uint16_t to) {
  if (index_ == 0) return engine_.indices_moved(indices, to);
  all_.front()->post([first = all_.front(), indices = std::move(indices), to](Instant) {
    first->engine_.indices_moved(indices, to);
  });
}

void WireThread::board(Luggage& luggage, const Ways& ways) {
  const Instant now = loop_.now();
  use(ways);
  engine_.adopt(*luggage.unit, now);
  while (!luggage.attached.empty()) {
    const auto added = attached_.insert(luggage.attached.extract(luggage.attached.begin()));
    watch(added.position->first, added.position->second);
  }
  for (auto& [id, taken] : luggage.components) {
    components_.place(id, std::move(taken.component), taken.ports, now);
  }
}

// ---- wire::Siblings ----

void WireThread::route(const std::string& host, const wire::Route& route) {
  for (WireThread* other : all_) {
    if (other == this) continue;
    other->post([other, host, route](Instant now) { other->engine_.use_route(host, route, now); });
  }
}

void WireThread::frames_sent(const std::string& host) {
  all_.front()->post(
      [first = all_.front(), host](Instant now) { first->engine_.frames_sent(host, now); });
}

// As those of components: bounded, with room used again.
void WireThread::datagrams(std::uint16_t shard, const wire::PeerAddress& from, BytesView run,
                           std::uint16_t segment_size) {
  if (crossings_->is_overfull()) {
    crossing_dropped_ += (run.size() + segment_size - 1) / segment_size;
    return;
  }
  auto crossing = crossings_->take();
  append(crossing->bytes, run);
  crossings_->sent(run.size());
  WireThread& taker = *all_[shard];
  taker.post([this, &taker, from, segment_size, back = crossings_,
              crossing = std::move(crossing)](Instant now) mutable {
    taker.engine_.datagrams(from, crossing->bytes, segment_size, now);
    if (back->give_back(std::move(crossing))) post([this](Instant) { watch_taps(); });
  });
}

void WireThread::release_index(std::uint32_t index) {
  all_.front()->post(
      [first = all_.front(), index](Instant) { first->engine_.forget_index(index); });
}

}  // namespace godwit::agent
