#pragma once
// A qemu-storage-daemon that has the disks of one vm open, and offers them over NBD, for writing:
// while they come in no QEMU may write them, whose main loop would be busy with the vm's memory.
// A QEMU that waits for its migration may have them open beside it: it reads nothing of them before
// that has ended, and then looks anew at what is there. Or to be looked at only (DiskAccess).
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "os/child.hh"
#include "qemu/volume.hh"

namespace godwit::qemu {

class StorageDaemon final {
 public:
  // Exports are named as in disk_node(), with allocation depths (BlockClient::status()); it listens
  // at `socket` before this returns. Throws SetupError. `ended`: it did so unasked, and what it
  // said.
  StorageDaemon(os::Loop& loop, const std::vector<DiskSpec>& disks,
                const std::vector<DiskPaths>& paths, const std::filesystem::path& socket,
                std::function<void(std::string why)> ended, DiskAccess access = DiskAccess::write);
  // Volumes, one named as the first disk is, and so on; to be looked at. It may take long before a
  // client is served: their servers are asked.
  StorageDaemon(os::Loop& loop, const std::vector<VolumeSpec>& volumes,
                const std::filesystem::path& socket, std::function<void(std::string why)> ended);
  // Kills it: what it was not told to flush may not be there.
  ~StorageDaemon();

  // `done` when it has written all, closed the files and ended.
  void stop(std::function<void(Result<>)> done);

 private:
  StorageDaemon(os::Loop& loop, std::vector<std::string> argv, const std::filesystem::path& socket,
                std::function<void(std::string why)> ended);
  void exited(const os::ExitStatus& status);

  std::filesystem::path socket_;
  os::Fd said_;  // a file in memory
  std::function<void(std::string)> ended_;
  std::function<void(Result<>)> stopped_;
  os::Child process_;  // the last: it ends first
};

}  // namespace godwit::qemu
