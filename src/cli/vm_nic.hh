#pragma once
// godwit vm nic: NICs that come and go while the vm runs.
#include "cli/options.hh"
#include "cli/table.hh"

namespace godwit::cli {

void add_vm_nic(CLI::App& noun, Context& context);
// Of the vm's "nics".
Table nic_table(const json& nics);

}  // namespace godwit::cli
