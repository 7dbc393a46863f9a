#pragma once
// Follows a migration through the agent's events until it ends. An agent that restarts meanwhile is
// waited for: the migration does not depend on it being watched.
#include <string>

#include "cli/context.hh"

namespace godwit::cli {

struct FollowOptions {
  // What the first Ctrl-C does; a second one always leaves at once.
  enum class OnInterrupt { abort_move, leave } on_interrupt = OnInterrupt::leave;
  bool until_ready = false;  // `ready` (synchronised, held) is an end too
  bool silent = false;
  Nanoseconds limit{0};  // zero: none
};

struct Followed {
  enum class End { finished, ready, left, late } end = End::finished;
  json migration;  // as it was last seen
};

Followed follow(const Context& context, const std::string& id, const FollowOptions& options);

// Prints the outcome (or the object with --json) and gives the exit status of its state.
ExitStatus conclude(const Context& context, const Followed& followed);

}  // namespace godwit::cli
