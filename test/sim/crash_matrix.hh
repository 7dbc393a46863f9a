#pragma once
// The crash matrix: at every point of a hand-over (migrate/points.hh) every fault (crash_table.hh).
// One guest moves from h0 to h1; its wire ends at h2. A point off the straight way is reached by a
// story: an abort, a hold, or an agent that was killed somewhere before.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/units.hh"
#include "crash_table.hh"
#include "migrate/points.hh"

namespace godwit::sim {

// How a move comes to a point.
struct Story {
  // The last two: the link is cut when the guest is whole at the target or released by the source;
  // then the operator gives up at the target, or says at the source that the target is destroyed.
  // In post-copy the memory follows; the source's QEMU may end before all of it has.
  enum class Kind : std::uint8_t {
    plain,
    hold,
    abort,
    give_up,
    postcopy,
    postcopy_lost,
    late_give_up,
    resolve
  };
  Kind kind = Kind::plain;
  std::uint64_t seed = 1;
  // Where the agent whose point it is was killed before.
  std::optional<migrate::Point> killed_at{};
};
std::string to_text(const Story& story);

// The first story that comes to each point; none is found for a point that nothing comes to.
std::vector<std::pair<migrate::Point, Story>> stories();
std::string_view to_text(Story::Kind kind);

struct CrashResult {
  std::uint64_t points = 0, runs = 0;
  Nanoseconds
      longest_stand{};  // of the guest, where all that was wrong is an agent that was killed
  std::vector<std::string> failures;  // with the options that run it alone
};

struct CrashOptions {
  std::uint64_t seeds = 1;       // stories per point
  std::string point{}, fault{};  // only this; empty: all
  bool is_traced = false;
};
CrashResult run_crash_matrix(const CrashOptions& options);

}  // namespace godwit::sim
