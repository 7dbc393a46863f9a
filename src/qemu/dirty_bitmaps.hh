#pragma once
// What a guest has written since a copy of its disks was made: QEMU's dirty bitmaps, one of each
// disk, of 64 KiB a bit. Those of qcow2 files outlive QEMU; one that QEMU could not write as it
// ended is not believed.
//
//   NAME        notes every write
//   NAME-taken  what NAME had when it was taken, until that is at the copy
#include "qemu/commands.hh"
#include "qemu/disk_spec.hh"

namespace godwit::qemu {

std::string taken_bitmap(const std::string& name);

enum class Changes {
  known,    // they are in the disks' bitmaps taken_bitmap(name)
  unknown,  // anything may have changed
};
// From when `done` is called writes are noted anew, whatever is the answer. What was taken before
// and not dropped is taken again. Where the answer will be `unknown`, `lost` is called before
// anything is changed: bitmaps that are new look as if nothing had been written before them. If it
// says false nothing is, and `done` is not called. Ends exports of the disks, which may have the
// bitmaps in use.
void take_changes(Qmp& qmp, std::vector<DiskSpec> disks, const std::string& name,
                  std::function<bool()> lost, std::function<void(Result<Changes>)> done);
// They are at the copy now.
void drop_changes(Qmp& qmp, std::size_t disks, const std::string& name, Done done);
// Bytes, of all disks; nullopt where a disk has no such bitmap.
void count_changes(Qmp& qmp, std::size_t disks, const std::string& name,
                   std::function<void(Result<std::optional<std::uint64_t>>)> done);
// Harmless where there are none.
void forget_changes(Qmp& qmp, std::size_t disks, const std::string& name, Done done);

}  // namespace godwit::qemu
