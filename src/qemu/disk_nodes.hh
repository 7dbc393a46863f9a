#pragma once
// The block nodes of a disk, as QEMU and its storage daemon take them.
#include <string>
#include <vector>

#include "qemu/disk_spec.hh"

namespace godwit::qemu {

// look: at what is in the file by now, whoever else has it open, or writes to it; nothing is
// locked.
enum class DiskAccess { write, look };

// Values of -blockdev, in their order; the last is the disk, with the name `node`. What is
// discarded or zeroed takes no room. Which image an overlay is on is said here, not by what stands
// in its file.
std::vector<std::string> disk_nodes(const DiskSpec& disk, const DiskPaths& paths,
                                    const std::string& node, DiskAccess access = DiskAccess::write);

}  // namespace godwit::qemu
