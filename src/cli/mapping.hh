#pragma once
// godwit mapping
#include "cli/options.hh"

namespace godwit::cli {

void add_mapping(CLI::App& app, Context& context);

}  // namespace godwit::cli
