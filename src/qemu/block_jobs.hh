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

// Ends the server and its connections; harmless where there is none. Who is connected and not yet
// past the handshake lets go before: QEMU (blockdev-nbd.c, since CVE-2024-7409) waits for its end
// without serving the context in which handshakes go on, and its guest stands for ever.
void stop_exports(Qmp& qmp, Done done);

// From when `done` is called every write goes to the NBD server at `socket`, too: to its exports of
// the nodes' names and of the disks' sizes. When that ends the guest goes on alone, and the taps
// stay, of no use: they are for end_lost_taps().
void tap_disks(Qmp& qmp, const std::filesystem::path& socket, std::size_t disks, Done done);

// The end of taps is where QEMU (block/mirror.c, all versions up to now) writes to memory that it
// has freed: a job that is forced to end, or ends by itself for an error, frees its map of the
// writes in flight before it waits for them. So neither is done while there may be any.
//
// Of taps whose server answers, until `done`: what is in flight is done and answered first.
void untap_disks(Qmp& qmp, std::size_t disks, Done done);
// Of all others, such as an earlier agent's: the guest stands for their end, some milliseconds,
// and runs after it if it ran. Harmless where there are none.
void end_lost_taps(Qmp& qmp, std::size_t disks, Done done);
// And what else an earlier agent left: exports, and files opened once more.
void abandon_disks(Qmp& qmp, std::size_t disks, Done done);

}  // namespace godwit::qemu
