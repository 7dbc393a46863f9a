#pragma once
// Components of a topology read as their hosts will read them.
#include <vector>

#include "topology/model.hh"

namespace godwit::cli {

// Puts what the file says of components into the form in which hosts show it (10.7.0.0/24 for
// 10.7.0.9/24), so that it can be compared, and adds what their types make of what it leaves out
// (WantedThing::whole). What they do not take is a problem, before any host is asked.
std::vector<Problem> read_settings(topology::Desired& desired);

}  // namespace godwit::cli
