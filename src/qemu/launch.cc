#include "qemu/launch.hh"

#include <fcntl.h>
#include <linux/capability.h>
#include <pwd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <system_error>

#include "os/capability.hh"
#include "qemu/tpm.hh"

namespace godwit::qemu {
namespace {

namespace fs = std::filesystem;

constexpr int kFirstPassedFd = 3;  // after stdin, stdout and stderr

// One QMP client and one console client at a time; more queue up here. Of disks all may come.
constexpr int kListenBacklog = kMaxDisks;

// Whether a user of a user namespace exists outside (user_namespaces(7)): lines "inside outside
// count".
bool is_mapped(const char* map, std::uint64_t id) {
  std::ifstream file(map);
  std::uint64_t inside = 0;
  std::uint64_t outside = 0;
  std::uint64_t count = 0;
  while (file >> inside >> outside >> count) {
    if (id >= inside && id - inside < count) return true;
  }
  return false;
}

bool everybody_may_read(const fs::path& path) {
  std::error_code error;
  const fs::path real = fs::canonical(path, error);
  if (error) return false;
  const auto has = [&error](const fs::path& at, fs::perms bit) {
    return (fs::status(at, error).permissions() & bit) != fs::perms::none && !error;
  };
  if (!has(real, fs::perms::others_read)) return false;
  for (fs::path at = real.parent_path();; at = at.parent_path()) {
    if (!has(at, fs::perms::others_exec)) return false;
    if (at == at.root_path()) return true;
  }
}

// The path under which QEMU's user can read `file`: itself, or a copy.
std::string readable(const std::string& file, const fs::path& copy, bool other_user) {
  if (file.empty()) return file;
  std::error_code error;
  if (!fs::is_regular_file(file, error)) fail_setup("{} is no file", file);
  if (!other_user || everybody_may_read(file)) return file;
  fs::copy_file(file, copy, fs::copy_options::overwrite_existing, error);
  if (!error) fs::permissions(copy, fs::perms{0444}, error);
  if (error) fail_setup("cannot copy {} to {}: {}", file, copy.string(), error.message());
  return copy.string();
}

os::Fd open_log(const VmPaths& paths) {
  std::error_code ignored;
  fs::rename(paths.log(), paths.log().string() + ".1", ignored);
  os::Fd log(::open(paths.log().c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!log) fail_setup("{}", errno_text("open " + paths.log().string()));
  return log;
}

void make_directory(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (!error) fs::permissions(path, fs::perms{0711}, error);
  if (error) fail_setup("cannot make the vm's directory {}: {}", path.string(), error.message());
}

}  // namespace

os::Fd listen_at(const fs::path& path) {
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  const std::string text = path.string();
  if (text.size() >= sizeof address.sun_path) {
    fail_setup("socket path {} is longer than {} bytes: choose a shorter --run-dir", text,
               sizeof address.sun_path - 1);
  }
  std::ranges::copy(text, address.sun_path);
  ::unlink(text.c_str());
  os::Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) fail_setup("{}", errno_text("socket"));
  if (::fchmod(fd.number(), 0600) != 0 ||
      ::bind(fd.number(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(fd.number(), kListenBacklog) != 0) {
    fail_setup("{}", errno_text("listen at " + text));
  }
  return fd;
}

std::optional<os::Command::User> qemu_user(std::vector<std::string>& notices) {
  if (!os::has_capability(CAP_SETUID) || !os::has_capability(CAP_SETGID)) return std::nullopt;
  for (const std::string_view name : kQemuUsers) {
    const passwd* entry = ::getpwnam(std::string(name).c_str());
    if (entry == nullptr) continue;
    if (!is_mapped("/proc/self/uid_map", entry->pw_uid) ||
        !is_mapped("/proc/self/gid_map", entry->pw_gid)) {
      notices.push_back(
          fmt::format("QEMU runs as our own user: this user namespace does not map {}", name));
      return std::nullopt;
    }
    os::Command::User user{.uid = entry->pw_uid, .gid = entry->pw_gid, .groups = {}};
    struct stat kvm{};
    if (::stat("/dev/kvm", &kvm) == 0) user.groups.push_back(kvm.st_gid);
    return user;
  }
  notices.push_back("QEMU runs as our own user: there is no user godwit-qemu or nobody");
  return std::nullopt;
}

Launched launch(const VmSpec& spec, const LaunchInput& input) {
  if (auto ok = check(spec); !ok) fail_setup("{}", ok.error().text);
  if (input.tap_fds.size() != spec.nics.size()) {
    fail_setup("vm {} has {} NICs but {} TAPs", spec.name, spec.nics.size(), input.tap_fds.size());
  }
  if (input.disks.size() != spec.disks.size()) {
    fail_setup("vm {} has {} disks but {} files", spec.name, spec.disks.size(), input.disks.size());
  }
  Launched launched;
  os::Command command;
  command.user = qemu_user(launched.notices);
  make_directory(input.paths.directory);

  VmSpec as_seen = spec;
  as_seen.kernel = readable(spec.kernel, input.paths.kernel(), command.user.has_value());
  as_seen.initrd = readable(spec.initrd, input.paths.initrd(), command.user.has_value());

  const os::Fd qmp = listen_at(input.paths.qmp());
  const os::Fd console = listen_at(input.paths.console());
  const os::Fd agent = spec.guest_agent ? listen_at(input.paths.guest_agent()) : os::Fd();
  const os::Fd log = open_log(input.paths);
  const os::Fd tpm = spec.tpm ? start_tpm(input.tpm, command.user) : os::Fd();
  QemuInput qemu{.binary = input.binary,
                 .qmp_fd = kFirstPassedFd,
                 .console_fd = kFirstPassedFd + 1,
                 .tap_fds = {},
                 .disks = input.disks,
                 .guest_agent_fd = -1,
                 .tpm_fd = -1,
                 .uefi = {},
                 .incoming_fd = {},
                 .rescue_fd = -1};
  command.fds = {{qmp.number(), qemu.qmp_fd}, {console.number(), qemu.console_fd}};
  for (const int tap : input.tap_fds) {
    qemu.tap_fds.push_back(qemu.console_fd + 1 + static_cast<int>(qemu.tap_fds.size()));
    command.fds.push_back({tap, qemu.tap_fds.back()});
  }
  if (agent) {
    qemu.guest_agent_fd = command.fds.back().target + 1;
    command.fds.push_back({agent.number(), qemu.guest_agent_fd});
  }
  if (tpm) {
    qemu.tpm_fd = command.fds.back().target + 1;
    command.fds.push_back({tpm.number(), qemu.tpm_fd});
  }
  if (spec.uefi.bytes != 0) {
    qemu.uefi = find_uefi(spec.machine);
    if (!qemu.uefi) fail_setup("there is no UEFI firmware for {} here", spec.machine);
  }
  const os::Fd rescue = input.incoming_fd ? listen_at(input.paths.rescue()) : os::Fd();
  if (input.incoming_fd) {
    qemu.incoming_fd = command.fds.back().target + 1;
    command.fds.push_back({*input.incoming_fd, *qemu.incoming_fd});
    qemu.rescue_fd = *qemu.incoming_fd + 1;
    command.fds.push_back({rescue.number(), qemu.rescue_fd});
    launched.incoming_uri = fmt::format("fd:{}", *qemu.incoming_fd);
  }
  // What it makes in recovery() and blocks() is its group's, in which an agent may be.
  command.umask = 0007;
  command.argv = qemu_argv(as_seen, qemu);
  command.stdout_fd = log.number();
  command.stderr_fd = log.number();
  command.cwd = "/";
  command.before_start = input.before_start;
  launched.child = os::Child::spawn_detached(std::move(command));
  return launched;
}

Result<> grant_to_qemu(const fs::path& path) {
  std::vector<std::string> ignored;
  const auto user = qemu_user(ignored);
  // To its user where we may; a service without CAP_CHOWN is in QEMU's group instead.
  const bool gives_away = os::has_capability(CAP_CHOWN);
  const uid_t owner = gives_away && user ? user->uid : static_cast<uid_t>(-1);
  if (user && ::chown(path.c_str(), owner, user->gid) != 0) {
    return fail("{}", errno_text("give " + path.string() + " to QEMU's user or group"));
  }
  const mode_t mode = user && !gives_away ? 0660 : 0600;
  if (::chmod(path.c_str(), mode) != 0) return fail("{}", errno_text("chmod " + path.string()));
  return {};
}

Result<> make_directory_for_qemu(const fs::path& directory) {
  std::error_code error;
  fs::create_directory(directory, error);
  if (error) return fail("cannot make {}: {}", directory.string(), error.message());
  if (auto done = grant_to_qemu(directory); !done) return done;
  fs::permissions(directory, fs::perms::owner_exec | fs::perms::group_exec, fs::perm_options::add,
                  error);
  if (error) return fail("cannot open {} to QEMU: {}", directory.string(), error.message());
  return {};
}

Result<fs::path> place_for_socket(const fs::path& directory) {
  if (auto done = make_directory_for_qemu(directory); !done) return std::unexpected(done.error());
  std::error_code error;
  const fs::path socket = directory / "socket";
  fs::remove(socket, error);
  return socket;
}

std::string log_tail(const VmPaths& paths) {
  std::ifstream file(paths.log(), std::ios::binary | std::ios::ate);
  if (!file) return {};
  const auto size = static_cast<std::size_t>(std::max<std::streamoff>(file.tellg(), 0));
  const std::size_t count = std::min(size, kLogTail);
  file.seekg(static_cast<std::streamoff>(size - count));
  std::string text(count, '\0');
  file.read(text.data(), static_cast<std::streamsize>(count));
  return text;
}

void remove_files(const VmPaths& paths) {
  std::error_code ignored;
  for (const fs::path& path : {paths.qmp(), paths.console(), paths.guest_agent(), paths.rescue(),
                               paths.migration(), paths.tap(), paths.kernel(), paths.initrd(),
                               paths.log(), fs::path(paths.log().string() + ".1")}) {
    fs::remove(path, ignored);
  }
  fs::remove_all(paths.recovery(), ignored);
  fs::remove_all(paths.blocks(), ignored);
  fs::remove(paths.directory, ignored);
}

}  // namespace godwit::qemu
