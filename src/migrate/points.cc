#include "migrate/points.hh"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "migrate/source.hh"
#include "migrate/target.hh"

namespace godwit::migrate {
namespace {

// All values of an enum that have a name.
template <class Enum>
std::vector<Enum> all() {
  std::vector<Enum> values;
  for (std::uint8_t i = 0; to_text(static_cast<Enum>(i)) != "?"; ++i) {
    values.push_back(static_cast<Enum>(i));
  }
  return values;
}

// What an agent makes of the journal that this machine has written.
Source restarted(const Source& machine) {
  return Source({}, machine.state(), machine.abort_told(), machine.memory_follows());
}
Target restarted(const Target& machine) { return Target(machine.state(), machine.refusal_told()); }

template <class Machine>
class Exploration final {
 public:
  Exploration(std::string_view side, std::set<Point>& points) : side_(side), points_(points) {}

  void from(const Machine& start) {
    std::vector<Machine> open{start};
    while (!open.empty()) {
      const Machine machine = open.back();
      open.pop_back();
      if (std::ranges::find(seen_, machine) != seen_.end()) continue;
      seen_.push_back(machine);
      for (const auto event : all<typename Machine::Event>()) {
        const bool restart = event == Machine::Event::restarted;
        Machine next = restart ? restarted(machine) : machine;
        const auto effects = next.handle(event);
        add(next, effects);
        open.push_back(next);
        if (std::ranges::find(effects, Machine::Effect::record) == effects.end()) continue;
        add(next, next.record_failed({}));
        open.push_back(next);
      }
    }
  }

 private:
  void add(const Machine& machine, const std::vector<typename Machine::Effect>& effects) {
    for (const auto effect : effects) {
      for (const Moment moment : {Moment::before, Moment::after}) {
        points_.insert({side_, to_text(machine.state()), to_text(effect), moment});
      }
    }
  }

  std::string_view side_;
  std::set<Point>& points_;
  std::vector<Machine> seen_;
};

}  // namespace

std::vector<Point> handover_points() {
  std::set<Point> points;
  Exploration<Source> source("source", points);
  for (const bool hold : {false, true}) {
    for (const bool pause : {false, true}) {
      source.from(Source({.hold = hold, .pause_on_diverge = pause}));
    }
  }
  Exploration<Target>("target", points).from(Target());
  return {points.begin(), points.end()};
}

std::string to_text(const Point& point) {
  return fmt::format("{}.{}.{}.{}", point.side, point.state, point.effect,
                     point.moment == Moment::before ? "before" : "after");
}

}  // namespace godwit::migrate
