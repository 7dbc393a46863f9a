#pragma once
// What a host of the lab sees of the machine's files: everything, read-only, but for directories of
// its own. No writable file is visible to two hosts, so that nothing can cheat through the disk.
//
//   /                everything that is there, with all submounts: read-only
//   /run /tmp /var/tmp /dev/shm      tmpfs, gone with the host's power
//   /var/lib /var/log                the host's disk: survives `lab kill` and `lab start`
//   /proc /sys /dev/pts              of its own namespaces; /sys and /proc/sys but net read-only
//   /etc/hosts                       the names of the lab
#include <string>
#include <vector>

namespace godwit::lab {

struct HostMounts {
  std::string disks;  // the directory where all hosts' disks are mounted, in the holder
  std::string host;
  std::string hosts_file;  // text for /etc/hosts
  // Directories that stay visible (read-only) although they are below one that is replaced: the
  // program's own and the working directory, when somebody builds in /tmp.
  std::vector<std::string> keep;
};

// Mounts an empty disk for all hosts at `disks`: once, in the holder's own mount namespace.
void mount_disks(const std::string& disks);
// In the new mount, PID and network namespaces of a host, by its init. Throws SetupError.
void enter_host_mounts(const HostMounts& mounts);

}  // namespace godwit::lab
