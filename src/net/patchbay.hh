#pragma once
// The components of one wire thread, and the frames on their way to them. A component gives its
// frames to the engine, which may give them to another component: so they are kept and handed on
// in rounds, and nothing calls itself.
//
//   engine ── take(port, frames) ──▶ [kept] ── run() ──▶ Component::handle ──▶ back to the engine
#include <functional>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/id.hh"
#include "net/component.hh"

namespace godwit::net {

class Patchbay final {
 public:
  // Where the frames of a component's port go.
  using ToPort = std::function<void(const PortId&, std::span<const BytesView>, Instant)>;
  explicit Patchbay(ToPort to_port) : to_port_(std::move(to_port)) {}

  // Or other ports of one that is here: `component` may be null then.
  void place(const ComponentId& id, std::unique_ptr<Component> component,
             const std::map<PortIndex, PortId>& ports, Instant now);
  void remove(const ComponentId& id);
  struct Taken {
    std::unique_ptr<Component> component;
    std::map<PortIndex, PortId> ports;
  };
  // For the patchbay of another thread; it must be here, with nothing on its way.
  Taken take_out(const ComponentId& id);
  // Null: it is not here.
  Component* find(const ComponentId& id) const;

  std::map<ComponentId, std::vector<PortCounters>> counters() const;

  // False: the port is no component's. The frames are copied, or dropped when there are too many.
  bool take(const PortId& port, std::span<const BytesView> frames);
  // Until nothing is on its way. What goes round and round between components is dropped: after so
  // many rounds, or when it has become too much, as where several ways lead round.
  void run(Instant now);
  // What they send then is on its way: run().
  void tick(Instant now);
  Instant next_tick() const { return next_tick_; }

  std::uint64_t looped() const { return looped_; }  // frames that were dropped for it

 private:
  struct Placed {
    std::unique_ptr<Component> component;
    std::map<PortIndex, PortId> ports;
    Instant due{};
  };
  struct End {
    ComponentId component;
    PortIndex port = 0;
  };
  // Of one call of take(): `frames` of the round's.
  struct Parcel {
    End to;
    std::size_t frames = 0;
  };
  // What is on its way at once. Memory is used again.
  struct Round {
    std::vector<Parcel> parcels{};
    std::vector<std::size_t> ends{};  // of frames in `bytes`
    Bytes bytes{};
  };
  class ToEngine;
  void handle(Round& round, Instant now);

  ToPort to_port_;
  std::map<ComponentId, Placed> placed_;
  std::unordered_map<PortId, End> ends_;
  Round kept_, handled_;
  std::size_t frames_ = 0, bytes_ = 0;  // taken since nothing was on its way
  std::vector<MutableBytes> views_;
  Instant next_tick_ = Instant::max();
  std::uint64_t looped_ = 0;
};

}  // namespace godwit::net
