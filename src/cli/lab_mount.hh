#pragma once
// Where `godwit lab` and `godwit probe` join the command line: they parse their own arguments.
#include <optional>
#include <span>

namespace godwit::cli {

// The exit status of `arguments` (without the program's name) if they are for one of these two.
std::optional<int> run_mounted(std::span<const char* const> arguments);

}  // namespace godwit::cli
