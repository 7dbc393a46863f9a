#pragma once
// The command line of `godwit` without the process around it: arguments in, text and status out.
#include <string>
#include <vector>

#include "cli/context.hh"

namespace godwit::cli {

// `arguments` without the program's name. Never throws.
ExitStatus run(std::vector<std::string> arguments, Io& io);

}  // namespace godwit::cli
