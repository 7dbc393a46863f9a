#pragma once
// Which ports are to be carried by another thread. Pure. What is joined within the host (wires,
// components) begins in one thread, where nothing has to cross; only when that thread has too much
// to do is it divided: first what is joined from what is not, then ports from their component.
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/id.hh"

namespace godwit::agent {

// One port, or the two of a wire within this host: they stay together.
struct WireLoad {
  std::vector<PortId> ports{};
  std::uint16_t thread = 0;
  std::size_t island = 0;  // loads that are joined, be it by a component, have the same number
  double work = 0;         // of a period, in any unit
};

struct WireShift {
  std::vector<std::size_t> loads{};  // by their places in what was given
  std::uint16_t from = 0, to = 0;
  bool is_island = false;  // all of one: its components go along
};

// `busy`: each thread's share of a CPU, with what it waited for one: on a busy host the one that
// has too much to do gets no more of it than the others. Nothing: it is well as it is.
std::optional<WireShift> next_shift(std::span<const double> busy, std::span<const WireLoad> loads);

}  // namespace godwit::agent
