#pragma once
// `lab up` and `lab down`.
#include <string>

#include "base/result.hh"

namespace godwit::lab {

struct UpOptions {
  std::string name;
  std::string config_path;  // empty: the built-in lab
  bool agents = true;
};

// Makes the lab, or nothing: whatever ends it before it is done (Ctrl-C too) removes all. True when
// it was made now, false when the same lab was up already. Throws SetupError.
bool bring_up(const UpOptions& options);

// Removes the lab, running or crashed; false when there was none. Throws SetupError.
bool bring_down(const std::string& name);

}  // namespace godwit::lab
