#pragma once
// Every place at which a hand-over can be interrupted, found in the machines themselves: all events
// are tried in all states that they can come to, also after a restart. An effect that is added is
// thus a point of the crash tests (test/sim, test/e2e, bench/torture.py) without being listed.
#include <compare>
#include <string>
#include <string_view>
#include <vector>

#include "migrate/event_queue.hh"

namespace godwit::migrate {

// Before or after `effect`, which `side` performs on its way into or in `state`.
struct Point {
  std::string_view side;  // "source" or "target"
  std::string_view state;
  std::string_view effect;
  Moment moment{};

  auto operator<=>(const Point&) const = default;
};

std::vector<Point> handover_points();
// "source.released.commit_target.before"
std::string to_text(const Point& point);

}  // namespace godwit::migrate
