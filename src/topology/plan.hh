#pragma once
// What has to be asked of which host so that what is becomes what is wanted. Nothing is asked here.
//
//   cut        wires that go, or whose port is wanted elsewhere
//   stop, erase, remove    of what goes: vms; then ports of components; ports and components
//   make       components and ports, and changes of components
//   run        vms
//   connect    wires
//
// Steps of one phase may be taken in any order or beside each other, those of the next when all
// of it are done. Each is one request, harmless when repeated: after a crash, plan again.
//
// What is not in the file is left alone, unless a topology of this name has made it. Then a setting
// goes back to its default, and a thing goes, in steps that say `prune`. A vm is taken for made by
// it if one of its NICs' ports is; what is there is not changed, and when it goes its disks stay.
// Vms and components that have moved stay where they are: a move keeps what they know, a plan would
// not.
#include "topology/model.hh"

namespace godwit::topology {

enum class Phase { cut, stop, erase, remove, make, run, connect };
inline constexpr Phase kLastPhase = Phase::connect;

struct Step {
  Phase phase = Phase::make;
  bool prune = false;
  std::string host;        // who is asked
  std::string what;        // "add port web at e1", for people
  nlohmann::json request;  // {method, path, query?, body?}, as in a batch
};

struct Plan {
  std::vector<Step> steps;
  // Why the file cannot be so here: then there are no steps.
  std::vector<Problem> problems;
  // What would go, and stays: something that others made hangs on it.
  std::vector<std::string> notes;
};

Plan plan(const Desired& desired, const Actual& actual);

}  // namespace godwit::topology
