#pragma once
// Completion for shells. `godwit completion SHELL` prints a few lines that ask
// `godwit complete WORD...` what may stand in the place of the last word; the answer comes from the
// tool's own tree of commands and, for names of vms and the like, from the agent.
#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "cli/context.hh"

namespace godwit::cli {

// Prints "CANDIDATE\tDESCRIPTION" lines, or ":file" where a file's name goes. Never fails loudly:
// an agent that does not answer has no names.
void complete(const CLI::App& app, Context& context, const std::vector<std::string>& words);

}  // namespace godwit::cli
