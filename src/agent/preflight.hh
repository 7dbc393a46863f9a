#pragma once
// Everything that could make a move fail and can be known before anything is touched: the source's
// part, which asks QEMU and the target's agent (preflight_target.hh).
#include <functional>

#include "agent/findings.hh"
#include "agent/source_move.hh"

namespace godwit::agent {

// What of the move's options both hosts have to be able to.
struct Wish {
  bool compact = true;
  bool postcopy = false;
  Strategy strategy = Strategy::wire;
  Epoch epoch = 0;  // that its ports would have there
  Leading leading{};
};
// `done` is called once, later.
void preflight(const SourceMove::Context& context, Vm& vm, const std::string& to, Wish wish,
               std::function<void(Findings)> done);

}  // namespace godwit::agent
