#include "qemu/tpm.hh"

#include "os/socket.hh"
#include "qemu/argv.hh"
#include "qemu/launch.hh"

namespace godwit::qemu {
namespace {

constexpr int kControlFd = 3;

}  // namespace

bool has_tpm_emulator() {
  const auto done = os::run({.argv = {"swtpm", "--version"}});
  return done && done->status.success();
}

os::Fd start_tpm(const std::filesystem::path& directory,
                 const std::optional<os::Command::User>& user) {
  if (auto made = make_directory_for_qemu(directory); !made) fail_setup("{}", made.error().text);
  os::SocketPair sockets = os::make_socket_pair();
  // As a daemon: it outlives us, and is not ours to wait for.
  const auto started =
      os::run({.argv = {"swtpm", "socket", "--tpm2", "--daemon", "--terminate", "--tpmstate",
                        fmt::format("dir={},mode=0600", escape_option(directory.string())),
                        "--ctrl", fmt::format("type=unixio,clientfd={}", kControlFd)},
               .fds = {{sockets.theirs.number(), kControlFd}},
               .user = user,
               .cwd = "/",
               .umask = 0077,
               .new_session = true});
  if (!started) fail_setup("{}", started.error().text);
  if (!started->status.success()) {
    fail_setup("swtpm: {}: {}", started->status.text(), started->err);
  }
  return std::move(sockets.ours);
}

}  // namespace godwit::qemu
