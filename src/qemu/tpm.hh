#pragma once
// A vm's TPM 2.0, by swtpm: a process of its own for each QEMU, which ends with it. When the vm
// moves, QEMU takes the state out of the one and puts it into the other, within its own stream.
#include <filesystem>
#include <optional>

#include "os/child.hh"
#include "os/fd.hh"

namespace godwit::qemu {

bool has_tpm_emulator();

// QEMU's end of the connection to a new one, which keeps its state in `directory`. That is made,
// and given to `user`, if it is not there. Throws SetupError.
os::Fd start_tpm(const std::filesystem::path& directory,
                 const std::optional<os::Command::User>& user);

}  // namespace godwit::qemu
