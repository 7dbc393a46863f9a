#pragma once
// What a transfer carried, as a report of its move has it.
#include "agent/transfer_link.hh"
#include "migrate/report.hh"

namespace godwit::agent {

void fill(migrate::Report& report, TransferLink& link);

}  // namespace godwit::agent
