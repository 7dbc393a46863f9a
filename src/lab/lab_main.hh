#pragma once
// `godwit lab ...`: sites, hosts and the links between them on one machine (design 11).
#include <cstddef>
#include <span>

namespace godwit::lab {

// `args` is what follows `lab`. Returns the exit status: 0 done, 1 failed, 2 usage; `exec` returns
// that of its command.
int lab_main(std::span<const char* const> args);

}  // namespace godwit::lab
