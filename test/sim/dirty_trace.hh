#pragma once
// How a guest writes to its memory, in a form that can be replayed over any link: the pages that
// are dirty after a time follow from it for rounds of every length, which a list of dirty rates
// would not give, as it counts a page that is written in two intervals twice. As a text:
//
//   # of a mail server, 2026-11              a comment
//   memory 65536                             pages in use; all cross in the first round
//   group hot 2000                           a name, and pages that are written alike
//   group rest 40000
//   at 0ms hot 600 rest 50                   from this time on: writes per second of each group
//   at 4s  hot 9000 rest 50                  (one that is not named is still), to its pages at
//   random repeat 5s                                then from the beginning; else the last phase
//   stays
//
// A page is 4096 bytes. Of a group of n pages with w writes per second, n * (1 - exp(-w * t / n))
// are dirty t seconds after a sync; skewed writes are several groups.
#include <string>
#include <string_view>
#include <vector>

#include "base/units.hh"

namespace godwit::sim {

inline constexpr double kPageBytes = 4096;

struct DirtyTrace {
  struct Group {
    std::string name;
    double pages = 0;
  };
  struct Phase {
    Nanoseconds at{};
    std::vector<double> writes_per_second;  // of each group
  };
  std::string name;
  double memory_pages = 0;
  std::vector<Group> groups;
  std::vector<Phase> phases;
  Nanoseconds repeat{};  // 0: never

  const Phase& phase_at(Nanoseconds time) const;
};

Result<DirtyTrace> parse_dirty_trace(std::string name, std::string_view text);
Result<DirtyTrace> read_dirty_trace(const std::string& path);

// What QEMU's dirty log holds while the guest runs.
class DirtyLog final {
 public:
  explicit DirtyLog(const DirtyTrace& trace) : trace_(trace), dirty_(trace.groups.size()) {}
  void run(Nanoseconds duration);
  double pages() const;
  // Reads and clears it.
  double sync();

 private:
  const DirtyTrace& trace_;
  Nanoseconds now_{};
  std::vector<double> dirty_;  // pages of each group
};

}  // namespace godwit::sim
