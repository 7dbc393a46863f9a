#pragma once
// QMP commands, one after the other.
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "qemu/commands.hh"

namespace godwit::qemu {

struct Step {
  std::string command;
  nlohmann::json arguments;
  bool may_fail = false;  // QEMU may refuse it; it has to be there
};

// Up to the first that fails; `done` is called once, also if the Qmp goes before.
void run(Qmp& qmp, std::vector<Step> steps, Done done);

}  // namespace godwit::qemu
