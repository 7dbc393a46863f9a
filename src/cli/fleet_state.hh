#pragma once
// All hosts of the fleet, asked through the one agent that is spoken to: what they have, and to do
// steps of a plan. Each host has a thread of its own here, and a connection.
#include <functional>
#include <string>
#include <vector>

#include "cli/context.hh"
#include "topology/plan.hh"

namespace godwit::cli {

// Fails if one that is up does not answer.
topology::Actual ask_fleet(const Context& context);

struct Outcome {
  const topology::Step* step = nullptr;
  std::string error;  // empty: done
};
// Phase by phase; those of one, host by host, beside each other. What fails keeps nothing else from
// being tried. `told` is called with some outcomes at a time, from one thread at a time.
std::vector<Outcome> take_steps(const Context& context, const std::vector<topology::Step>& steps,
                                const std::function<void(const std::vector<Outcome>&)>& told);
// The same, and a Failure that names what failed.
void take_all(const Context& context, const std::vector<topology::Step>& steps);

}  // namespace godwit::cli
