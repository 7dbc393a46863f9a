#pragma once
// What QEMU has to do with the disks of a vm that moves: offer them over NBD, and tell of what its
// guest writes. Disks are named as in disk_node(). Sequences of QMP commands; `done` is called
// once.
//
//   guest --> [mirror job, sync=none, write-blocking] --> disk0
//                   '--> NBD client --> our socket: every write, before the guest has its answer
//   our NBD client --> QEMU's NBD server --> disk0: what there is to read
#include <filesystem>

#include "qemu/commands.hh"

namespace godwit::qemu {

// QEMU's NBD server listens at `socket`, where QEMU's user may make one; each disk is an export of
// its node's name, for reading, with what BlockClient::status() asks for: allocation depths, and
// the bitmap of that name, which each has and which does not change.
void export_disks(Qmp& qmp, const std::filesystem::path& socket, std::size_t disks,
                  const std::optional<std::string>& bitmap, Done done);
// Ends its connections too. Harmless where there is none.
void stop_exports(Qmp& qmp, Done done);

// From when `done` is called every write goes to the NBD server at `socket`, too: to its exports of
// the nodes' names and of the disks' sizes. When that ends the guest goes on alone.
void tap_disks(Qmp& qmp, const std::filesystem::path& socket, std::size_t disks, Done done);
// `done` when it has ended. Harmless where there is no tap, or one of an earlier agent.
void untap_disks(Qmp& qmp, std::size_t disks, Done done);

// Ends taps and exports without waiting for it. Who comes next waits, in untap_disks(): a wait of
// ours could end when his have begun, and take them away.
void abandon_disks(Qmp& qmp, std::size_t disks);

}  // namespace godwit::qemu
