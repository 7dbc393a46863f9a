#pragma once
// Whether the host passes on packets that are not for it.
#include "base/result.hh"

namespace godwit::os {

// All in the calling thread's network namespace.
bool forwards(bool is4);
// That it does; it stays so. Throws SetupError with the remedy where the agent may not change it,
// and where the host would lose its way out by that.
void have_host_forward(bool is4);

}  // namespace godwit::os
