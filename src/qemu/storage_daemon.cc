#include "qemu/storage_daemon.hh"

#include <sys/mman.h>
#include <unistd.h>

#include <csignal>

#include "base/check.hh"
#include "qemu/launch.hh"

namespace godwit::qemu {
namespace {

constexpr int kListenerFd = 3;
constexpr std::size_t kMostSaid = 1000;  // bytes that an error quotes

std::string read_from_start(const os::Fd& file) {
  std::string text(kMostSaid, '\0');
  const auto count = ::pread(file.number(), text.data(), text.size(), 0);
  text.resize(count > 0 ? static_cast<std::size_t>(count) : 0);
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

using Nodes = std::vector<std::vector<std::string>>;  // of each disk

Nodes nodes_of(const std::vector<DiskSpec>& disks, const std::vector<DiskPaths>& paths,
               DiskAccess access) {
  CHECK(disks.size() == paths.size(), "{} paths for {} disks", paths.size(), disks.size());
  Nodes nodes;
  for (std::size_t i = 0; i < disks.size(); ++i) {
    nodes.push_back(disk_nodes(disks[i], paths[i], disk_node(i), access));
  }
  return nodes;
}

Nodes nodes_of(const std::vector<VolumeSpec>& volumes) {
  Nodes nodes;
  for (std::size_t i = 0; i < volumes.size(); ++i) {
    nodes.push_back(volume_nodes(volumes[i], disk_node(i), DiskAccess::look));
  }
  return nodes;
}

std::vector<std::string> argv_of(const Nodes& nodes, DiskAccess access) {
  std::vector<std::string> argv{"qemu-storage-daemon"};
  for (const auto& of_disk : nodes) {
    for (const auto& node : of_disk) argv.insert(argv.end(), {"--blockdev", node});
  }
  argv.insert(argv.end(), {"--nbd-server", fmt::format("addr.type=fd,addr.str={}", kListenerFd)});
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    argv.insert(argv.end(), {"--export", fmt::format("type=nbd,id={0},node-name={0},name={0},"
                                                     "writable={1},allocation-depth=on",
                                                     disk_node(i),
                                                     access == DiskAccess::write ? "on" : "off")});
  }
  return argv;
}

}  // namespace

StorageDaemon::StorageDaemon(os::Loop& loop, const std::vector<DiskSpec>& disks,
                             const std::vector<DiskPaths>& paths,
                             const std::filesystem::path& socket,
                             std::function<void(std::string)> ended, DiskAccess access)
    : StorageDaemon(loop, argv_of(nodes_of(disks, paths, access), access), socket,
                    std::move(ended)) {}

StorageDaemon::StorageDaemon(os::Loop& loop, const std::vector<VolumeSpec>& volumes,
                             const std::filesystem::path& socket,
                             std::function<void(std::string)> ended)
    : StorageDaemon(loop, argv_of(nodes_of(volumes), DiskAccess::look), socket, std::move(ended)) {}

StorageDaemon::StorageDaemon(os::Loop& loop, std::vector<std::string> argv,
                             const std::filesystem::path& socket,
                             std::function<void(std::string)> ended)
    : socket_(socket), said_(::memfd_create("said", MFD_CLOEXEC)), ended_(std::move(ended)) {
  if (!said_) fail_setup("{}", errno_text("make a file in memory"));
  const os::Fd listener = listen_at(socket);
  std::vector<std::string> notices;
  process_ = os::Child::spawn({.argv = std::move(argv),
                               .fds = {{listener.number(), kListenerFd}},
                               .stdout_fd = said_.number(),
                               .stderr_fd = said_.number(),
                               .user = qemu_user(notices),
                               .cwd = "/",
                               .new_session = true,
                               .dies_with_us = true});
  process_.on_exit(loop, [this](const os::ExitStatus& status) { exited(status); });
}

StorageDaemon::~StorageDaemon() {
  std::error_code ignored;
  std::filesystem::remove(socket_, ignored);
}

void StorageDaemon::stop(std::function<void(Result<>)> done) {
  stopped_ = std::move(done);
  (void)process_.kill(SIGTERM);  // one that has ended is told by exited()
}

void StorageDaemon::exited(const os::ExitStatus& status) {
  const std::string said = read_from_start(said_);
  const std::string why =
      fmt::format("qemu-storage-daemon: {}{}{}", status.text(), said.empty() ? "" : ": ", said);
  if (!stopped_) return ended_(why);
  std::exchange(stopped_, nullptr)(status.success() ? Result<>{} : fail("{}", why));
}

}  // namespace godwit::qemu
