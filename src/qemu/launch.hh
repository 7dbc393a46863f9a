#pragma once
// Starts QEMU so that it outlives the agent: own session, none of our stdio, its words in a log
// file; an unprivileged user of its own where we may. The QMP and console sockets listen before
// QEMU starts: Qmp::connect() may follow at once and tells by `closed` when QEMU dies early.
#include <functional>
#include <string>
#include <vector>

#include "os/child.hh"
#include "qemu/argv.hh"

namespace godwit::qemu {

// The user that QEMU runs as where we may change it (CAP_SETUID, CAP_SETGID): the first of these
// that exists.
inline constexpr std::string_view kQemuUsers[] = {"godwit-qemu", "nobody"};
// The end of the log that an error quotes.
inline constexpr std::size_t kLogTail = 2000;

struct LaunchInput {
  VmPaths paths;                   // the directory is made
  std::vector<int> tap_fds;        // borrowed; one per NIC, with IFF_VNET_HDR
  std::vector<DiskPaths> disks{};  // one per disk, each QEMU's (grant_to_qemu)
  std::filesystem::path tpm{};     // directory of its state, if it has one; made if it is not there
  // For the target of a migration: one end of a socket pair, whose other end feeds the stream in
  // and takes the return path out. Borrowed.
  std::optional<int> incoming_fd = std::nullopt;
  std::string binary{kQemuBinary};
  // Called before QEMU runs, to record the process that will be it (os::Command::before_start).
  std::function<void(const os::ProcessIdentity&)> before_start{};
};

struct Launched {
  os::Child child;  // detached; its identity() goes into the store for adopting later
  std::vector<std::string> notices;
  std::string incoming_uri;  // for IncomingMigration::start(); empty unless incoming
};

// Throws SetupError. An earlier log is kept as qemu.log.1.
Launched launch(const VmSpec& spec, const LaunchInput& input);

// A unix socket of ours that listens at `path`, for a process that is given it. Throws SetupError.
os::Fd listen_at(const std::filesystem::path& path);

// Lets QEMU's user connect to a unix socket of ours at `path`, e.g. the one that the source of a
// migration is to write into ("unix:PATH"); its directory must be traversable.
Result<> grant_to_qemu(const std::filesystem::path& path);

// A directory that QEMU's user may make files in, if it is not there yet.
Result<> make_directory_for_qemu(const std::filesystem::path& directory);

// Where QEMU may make a socket: in a directory of its own, for which an earlier one is removed.
Result<std::filesystem::path> place_for_socket(const std::filesystem::path& directory);

// What QEMU said last, for errors; empty without a log.
std::string log_tail(const VmPaths& paths);

// Removes the vm's sockets, copies and directory; the log too.
void remove_files(const VmPaths& paths);

// The user and groups for QEMU; nothing where we may not change it or the user namespace does not
// map it, then `notices` says so.
std::optional<os::Command::User> qemu_user(std::vector<std::string>& notices);

}  // namespace godwit::qemu
