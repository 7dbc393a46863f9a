#include "lab/host_mounts.hh"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/result.hh"
#include "lab/state.hh"
#include "os/fd.hh"

namespace godwit::lab {
namespace {

struct PrivateDirectory {
  const char* path;
  const char* options;
};
constexpr std::array kTmpfs = {
    PrivateDirectory{"/run", "mode=755"}, PrivateDirectory{"/tmp", "mode=1777"},
    PrivateDirectory{"/var/tmp", "mode=1777"}, PrivateDirectory{"/dev/shm", "mode=1777"}};
constexpr std::array kOnDisk = {PrivateDirectory{"/var/lib", "lib"},
                                PrivateDirectory{"/var/log", "log"}};

void mount_new(const char* type, const char* at, unsigned long flags, const char* options) {
  if (::mount(type, at, type, flags, options) != 0) {
    fail_setup("{}", errno_text(fmt::format("mount {} at {}", type, at)));
  }
}

// A detached copy of what is visible at `path`, to be put elsewhere (open_tree(2), Linux 5.2).
os::Fd take_tree(const std::string& path) {
  os::Fd tree(
      ::open_tree(AT_FDCWD, path.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE));
  if (!tree) fail_setup("{}", errno_text(fmt::format("copy the mounts at {}", path)));
  return tree;
}

void put_tree(const os::Fd& tree, const std::string& at) {
  if (::move_mount(tree.number(), "", AT_FDCWD, at.c_str(), MOVE_MOUNT_F_EMPTY_PATH) != 0) {
    fail_setup("{}", errno_text(fmt::format("mount a directory at {}", at)));
  }
}

void make_read_only(int directory, const char* path, unsigned flags) {
  mount_attr attributes{};
  attributes.attr_set = MOUNT_ATTR_RDONLY;
  if (::mount_setattr(directory, path, flags | AT_RECURSIVE, &attributes, sizeof attributes) != 0) {
    fail_setup("{}; this needs Linux 5.12", errno_text("make the machine's files read-only"));
  }
}

// Strictly: a user who works in /tmp itself does not take it along.
bool is_below(const std::string& path, std::string_view directory) {
  return path.size() > directory.size() && path.starts_with(directory) &&
         path[directory.size()] == '/';
}

bool is_hidden(const std::string& path) {
  const auto hides = [&](const PrivateDirectory& directory) {
    return is_below(path, directory.path);
  };
  return std::any_of(kTmpfs.begin(), kTmpfs.end(), hides) ||
         std::any_of(kOnDisk.begin(), kOnDisk.end(), hides);
}

void make_directories(const std::string& path) {
  for (std::size_t end = 1; end != std::string::npos;) {
    end = path.find('/', end + 1);
    ::mkdir(path.substr(0, end).c_str(), 0755);
  }
}

void mount_proc() {
  mount_new("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr);
  // Most of /proc/sys is the machine's; net is this network namespace's.
  const os::Fd all = take_tree("/proc/sys");
  const os::Fd net = take_tree("/proc/sys/net");
  make_read_only(all.number(), "", AT_EMPTY_PATH);
  put_tree(all, "/proc/sys");
  put_tree(net, "/proc/sys/net");
}

void show_hosts_file(const std::string& text) {
  ::mkdir("/run/lab-etc", 0755);
  write_file("/run/lab-etc/hosts", text, 0644);
  if (::access("/etc/hosts", F_OK) == 0) {
    put_tree(take_tree("/run/lab-etc/hosts"), "/etc/hosts");
  } else {  // a system that debootstrap made has none, and no place to put one
    mount_new("overlay", "/etc", MS_RDONLY, "lowerdir=/run/lab-etc:/etc");
  }
}

}  // namespace

void mount_disks(const std::string& disks) {
  ::mkdir(disks.c_str(), 0700);
  mount_new("tmpfs", disks.c_str(), MS_NOSUID | MS_NODEV, "mode=755");
}

void enter_host_mounts(const HostMounts& mounts) {
  if (::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    fail_setup("{}", errno_text("make the mounts private"));
  }
  std::array<os::Fd, kOnDisk.size()> disk;
  const std::string own_disk = mounts.disks + "/" + mounts.host;
  ::mkdir(own_disk.c_str(), 0755);
  for (std::size_t i = 0; i < kOnDisk.size(); ++i) {
    const std::string part = own_disk + "/" + kOnDisk[i].options;
    ::mkdir(part.c_str(), 0755);
    disk[i] = take_tree(part);
  }
  std::vector<std::pair<std::string, os::Fd>> kept;
  for (const auto& path : mounts.keep) {
    if (!is_hidden(path) || ::access(path.c_str(), F_OK) != 0) continue;
    kept.emplace_back(path, take_tree(path));
    make_read_only(kept.back().second.number(), "", AT_EMPTY_PATH);
  }
  // The other hosts' disks are not even below what covers them.
  if (::umount2(mounts.disks.c_str(), MNT_DETACH) != 0) {
    fail_setup("{}", errno_text("leave the other hosts' disks"));
  }
  make_read_only(AT_FDCWD, "/", 0);

  for (const auto& directory : kTmpfs) {
    if (::access(directory.path, F_OK) != 0) continue;  // no /dev/shm, no /var/tmp: nothing to hide
    mount_new("tmpfs", directory.path, MS_NOSUID | MS_NODEV, directory.options);
  }
  for (std::size_t i = 0; i < kOnDisk.size(); ++i) put_tree(disk[i], kOnDisk[i].path);
  for (const auto& [path, tree] : kept) {
    make_directories(path);
    put_tree(tree, path);
  }
  mount_proc();
  mount_new("sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, nullptr);
  mount_new("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620");
  ::mkdir("/var/lib/godwit", 0700);
  show_hosts_file(mounts.hosts_file);
}

}  // namespace godwit::lab
