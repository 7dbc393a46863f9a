#pragma once
// Running a command inside a node: the namespaces of its init are entered through a pidfd
// (setns(2)), so that a recycled pid is never taken for the node.
#include <string>
#include <vector>

#include "lab/state.hh"

namespace godwit::lab {

struct InsideCommand {
  std::vector<std::string> argv;
  // Detached: in a session of its own, a child of the node's init; output goes to `log`, a path
  // inside the node (empty: /dev/null). The caller returns as soon as the program runs.
  bool detached = false;
  std::string log;
};

// Returns the exit status as a shell tells it: 128 + N after signal N, 127 when there is no such
// program, 126 when it cannot be run. The standard descriptors are passed on; interactive programs
// have the terminal. Leaves this process in the node: the caller ends with _exit() right after.
// Throws SetupError when the node cannot be entered.
int run_inside(const NodeState& node, const InsideCommand& command);

}  // namespace godwit::lab
