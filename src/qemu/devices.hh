#pragma once
// Which devices of a running vm cannot migrate, by name. Looked up in QEMU's object tree, so that
// hot-plugged ones are seen too.
#include <string>
#include <string_view>
#include <vector>

#include "qemu/commands.hh"
#include "qemu/vm_spec.hh"

namespace godwit::qemu {

// Why a device of this QOM type cannot migrate; empty when it can.
std::string_view why_unsupported(std::string_view qom_type);

// One line per obstacle: devices of /machine/peripheral[-anon], query-tpm, query-block (writable
// disks and a TPM beyond the vm's own), hot-plugged memory, and whatever QEMU itself names as
// blocking. Empty = none.
void unsupported_devices(Qmp& qmp, const VmSpec& vm, Answer<std::vector<std::string>> answer);

}  // namespace godwit::qemu
