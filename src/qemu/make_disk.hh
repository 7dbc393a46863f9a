#pragma once
// New disks, made by qemu-img as QEMU's own user: an image that claims to be on another file gets
// nothing that QEMU could not read anyhow.
#include "qemu/disk_spec.hh"

namespace godwit::qemu {

// The file must not exist; its directory must be one that QEMU's user can pass through. Nothing is
// left behind when it fails. Blocks for some hundredths of a second.
Result<> make_disk(const DiskSpec& disk, const DiskPaths& paths);

// A dirty bitmap in the file of a disk that no QEMU has open; harmless where there is none.
void remove_bitmap(const DiskSpec& disk, const DiskPaths& paths, const std::string& name);

}  // namespace godwit::qemu
