#pragma once
// Godwit's own agent on every host of the lab (and routers, if told), and all of them in one fleet.
// Uses the programs as a user would: `godwitd`, `godwit host invite`, `godwit join`, each run
// inside its host.
#include <functional>
#include <string>

#include "lab/state.hh"

namespace godwit::lab {

// The path of the `godwitd` beside this program. Empty: there is none.
std::string agent_program();

// Starts the agent of one host (log: /var/log/godwitd.log there) and waits until it listens.
// Throws SetupError with the end of its log.
void start_agent(const std::string& lab, const NodeState& host);

// Starts all, and lets the others join the first. Calls `checkpoint` before each step, which throws
// to end it. Throws SetupError.
void start_fleet(const LabState& state, const std::function<void()>& checkpoint);

}  // namespace godwit::lab
