#pragma once
// godwit host trust.
#include "cli/context.hh"

namespace CLI {
class App;
}

namespace godwit::cli {

void add_trust(CLI::App& host, Context& context);
// Hosts of other fleets as `host ls` shows them beside ours, each with its "fleet".
json trusted_hosts(const Context& context);

}  // namespace godwit::cli
