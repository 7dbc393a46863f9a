#pragma once
// Design 9's table of what may be killed or cut, and what then becomes of the guest, as a rule over
// the two journals. The simulation and the end-to-end tests (godwit_sim --table) judge by it.
#include <cstdint>
#include <set>
#include <string_view>
#include <vector>

#include "migrate/state.hh"

namespace godwit::sim {

enum class Fault : std::uint8_t {
  source_agent,
  target_agent,
  both_agents,
  source_qemu,
  target_qemu,
  source_power,  // all processes of the host
  target_power,
  cut_1s,
  cut_30s,
  cut_for_ever,
  source_disk,  // full
  target_disk,
};

enum class Outcome : std::uint8_t {
  source,  // it runs there, and only there
  target,
  lost,     // as without us: the only QEMU that had it has ended
  waiting,  // it stands, whole, until the hosts can speak to each other or the operator decides
};

std::string_view to_text(Fault fault);
std::string_view to_text(Outcome outcome);
std::vector<Fault> all_faults();

// What may have become of the guest when all but a cut for ever is over, by what was on the disks
// when the fault struck.
std::set<Outcome> allowed(migrate::SourceState source, migrate::TargetState target, Fault fault);

}  // namespace godwit::sim
