#include "agent/wire_balance.hh"

#include <algorithm>
#include <cmath>
#include <map>

namespace godwit::agent {
namespace {

// A thread with less to do has room for what comes; a difference below is not worth the change.
constexpr double kHot = 0.5, kGap = 0.25;
// Of a CPU: moving less changes nothing.
constexpr double kLeast = 0.02;

struct Candidate {
  std::vector<std::size_t> loads{};
  double work = 0;
  bool is_whole = true;  // nothing of it is in another thread
};

}  // namespace

std::optional<WireShift> next_shift(std::span<const double> busy, std::span<const WireLoad> loads) {
  const auto hot = std::ranges::max_element(busy), cool = std::ranges::min_element(busy);
  const double gap = *hot - *cool;
  if (*hot < kHot || gap < kGap) return std::nullopt;
  WireShift shift{.from = static_cast<std::uint16_t>(hot - busy.begin()),
                  .to = static_cast<std::uint16_t>(cool - busy.begin())};
  std::map<std::size_t, Candidate> islands;
  double total = 0;
  for (std::size_t i = 0; i < loads.size(); ++i) {
    Candidate& island = islands[loads[i].island];
    if (loads[i].thread != shift.from) {
      island.is_whole = false;
      continue;
    }
    island.loads.push_back(i);
    island.work += loads[i].work;
    total += loads[i].work;
  }
  if (total <= 0) return std::nullopt;
  // The nearest to half of the gap, which makes them equal; what is all of the gap changes sides.
  double best = gap / 2 - kLeast;
  const auto consider = [&](const std::vector<std::size_t>& moved, double work, bool is_island) {
    const double share = work / total * *hot;
    const double off = std::abs(share - gap / 2);
    if (share < kLeast || off >= best) return;
    best = off;
    shift.loads = moved;
    shift.is_island = is_island;
  };
  for (const auto& [number, island] : islands) {
    if (island.is_whole) consider(island.loads, island.work, true);
  }
  if (shift.loads.empty()) {
    for (const auto& [number, island] : islands) {
      for (const std::size_t load : island.loads) consider({load}, loads[load].work, false);
    }
  }
  if (shift.loads.empty()) return std::nullopt;
  return shift;
}

}  // namespace godwit::agent
