#pragma once
// The terminal of this process joined to a vm's serial console.
#include <string_view>

#include "cli/context.hh"

namespace godwit::cli {

// Upgrades `path` and copies bytes both ways until the agent ends it or the user types Ctrl-].
// When standard input is not a terminal its end is passed on and the output is read to its end.
void attach_console(const Context& context, std::string_view path);

}  // namespace godwit::cli
