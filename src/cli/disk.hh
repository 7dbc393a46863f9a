#pragma once
// Disks of vms, as the commands on vms read and show them.
#include <string>

#include "cli/options.hh"
#include "cli/table.hh"

namespace godwit::cli {

// "NAME,size=8GiB,format=raw" as the API has it; the agent checks the values. Throws
// CLI::ValidationError.
json disk_of(const std::string& text);

Table disk_table(const json& disks);

}  // namespace godwit::cli
