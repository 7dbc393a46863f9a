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

// QEMU's NBD server listens at `socket`, where QEMU's user may make one; each node is an export of
// its name, for reading, with what BlockClient::status() asks for: allocation depths, and the
// bitmap of that name, which each has and which does not change.
void export_nodes(Qmp& qmp, const std::filesystem::path& socket,
                  const std::vector<std::string>& nodes, const std::optional<std::string>& bitmap,
                  Done done);
// Opens the files of these disks once more, for reading beside QEMU's own writes (which its locks
// would not have), as nodes of the name opened_file(). Those of an earlier agent are closed.
void open_files(Qmp& qmp, const std::vector<std::size_t>& disks, Done done);
std::string opened_file(std::size_t disk);
// When nobody reads them any more.
void close_files(Qmp& qmp, const std::vector<std::size_t>& disks, Done done);

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
