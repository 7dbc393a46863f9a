#pragma once
// The memory of a guest, read out of its QEMU's process (proc(5): maps, pagemap, mem; needs
// PTRACE_MODE_ATTACH). Of use where the vCPUs stand still for good: a vm that has left, one that
// came in part.
#include <functional>

#include "base/bytes.hh"
#include "base/result.hh"
#include "base/units.hh"
#include "os/child.hh"

namespace godwit::qemu {

// Each page that was ever written, by rising address, until `each` returns false. `memory`: the
// vm's, by which its mapping is found. Blocks; fails when the process is not there, has no such
// mapping or more than one, or ends meanwhile.
Result<> read_guest_memory(const os::ProcessIdentity& process, ByteCount memory,
                           const std::function<bool(BytesView page)>& each);

}  // namespace godwit::qemu
