#pragma once
// Where `godwit lab` joins the command line: it parses its own arguments.
#include <optional>
#include <span>

namespace godwit::cli {

// The exit status of `arguments` (without the program's name) if they are for the lab.
std::optional<int> run_mounted(std::span<const char* const> arguments);

}  // namespace godwit::cli
