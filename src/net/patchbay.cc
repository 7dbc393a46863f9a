#include "net/patchbay.hh"

#include <algorithm>

#include "base/check.hh"

namespace godwit::net {
namespace {

// Components in a row; a chain of more is a circle of wires that nobody broke.
constexpr int kMostRounds = 32;
// Of one run: a batch of super-frames through a dozen components, or of small ones to as many ports
// as a component has.
constexpr std::size_t kMostFrames = 65536, kMostBytes = 32 << 20;

}  // namespace

class Patchbay::ToEngine final : public Outlet {
 public:
  ToEngine(const Patchbay& bay, const Placed& from, Instant now)
      : bay_(bay), from_(from), now_(now) {}
  void send(PortIndex port, std::span<const BytesView> frames) override {
    if (const auto found = from_.ports.find(port); found != from_.ports.end()) {
      bay_.to_port_(found->second, frames, now_);
    }
  }

 private:
  const Patchbay& bay_;
  const Placed& from_;
  Instant now_;
};

void Patchbay::place(const ComponentId& id, std::unique_ptr<Component> component,
                     const std::map<PortIndex, PortId>& ports, Instant now) {
  CHECK(component || find(id) != nullptr, "component {} is not here", id.text());
  Placed& placed = placed_[id];
  if (component) placed.component = std::move(component);
  placed.ports = ports;
  std::erase_if(ends_, [&](const auto& each) { return each.second.component == id; });
  for (const auto& [index, port] : ports) ends_[port] = {.component = id, .port = index};
  placed.due = now;
  next_tick_ = std::min(next_tick_, now);
}

void Patchbay::remove(const ComponentId& id) {
  std::erase_if(ends_, [&](const auto& each) { return each.second.component == id; });
  placed_.erase(id);
}

Patchbay::Taken Patchbay::take_out(const ComponentId& id) {
  CHECK(find(id) != nullptr && kept_.parcels.empty(), "component {}", id.text());
  Placed& placed = placed_.at(id);
  Taken taken{.component = std::move(placed.component), .ports = std::move(placed.ports)};
  remove(id);
  return taken;
}

Component* Patchbay::find(const ComponentId& id) const {
  const auto found = placed_.find(id);
  return found != placed_.end() ? found->second.component.get() : nullptr;
}

std::map<ComponentId, std::vector<PortCounters>> Patchbay::counters() const {
  std::map<ComponentId, std::vector<PortCounters>> all;
  for (const auto& [id, placed] : placed_) all[id] = placed.component->counters();
  return all;
}

bool Patchbay::take(const PortId& port, std::span<const BytesView> frames) {
  const auto found = ends_.find(port);
  if (found == ends_.end()) return false;
  if (frames_ >= kMostFrames || bytes_ >= kMostBytes) {
    looped_ += frames.size();
    return true;
  }
  kept_.parcels.push_back({.to = found->second, .frames = frames.size()});
  for (const BytesView frame : frames) {
    append(kept_.bytes, frame);
    kept_.ends.push_back(kept_.bytes.size());
    bytes_ += frame.size();
  }
  frames_ += frames.size();
  return true;
}

void Patchbay::handle(Round& round, Instant now) {
  std::size_t frame = 0, begin = 0;
  for (const Parcel& parcel : round.parcels) {
    views_.clear();
    for (const std::size_t last = frame + parcel.frames; frame < last; ++frame) {
      const std::size_t end = round.ends[frame];
      views_.push_back(MutableBytes(round.bytes).subspan(begin, end - begin));
      begin = end;
    }
    const auto found = placed_.find(parcel.to.component);
    if (found == placed_.end()) continue;
    ToEngine out(*this, found->second, now);
    found->second.component->handle(parcel.to.port, views_, now, out);
  }
}

void Patchbay::run(Instant now) {
  for (int round = 0; !kept_.parcels.empty(); ++round) {
    std::swap(kept_, handled_);
    if (round < kMostRounds) {
      handle(handled_, now);
    } else {
      looped_ += handled_.ends.size();
    }
    handled_.parcels.clear();
    handled_.ends.clear();
    handled_.bytes.clear();
  }
  frames_ = bytes_ = 0;
}

void Patchbay::tick(Instant now) {
  if (now < next_tick_) return;
  next_tick_ = Instant::max();
  for (auto& [id, placed] : placed_) {
    if (placed.due <= now) {
      ToEngine out(*this, placed, now);
      placed.due = placed.component->tick(now, out);
    }
    next_tick_ = std::min(next_tick_, placed.due);
  }
}

}  // namespace godwit::net
