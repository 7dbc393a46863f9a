#include "lab/up.hh"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "lab/agents.hh"
#include "lab/config.hh"
#include "lab/control.hh"
#include "lab/holder.hh"
#include "lab/state.hh"

namespace godwit::lab {
namespace {

constexpr Nanoseconds kDownLimit = seconds(15);

volatile std::sig_atomic_t interrupted = 0;
void note_interrupt(int) { interrupted = 1; }

// While this lives, Ctrl-C and SIGTERM make blocking calls fail instead of ending the process.
class InterruptGuard final {
 public:
  InterruptGuard() {
    struct sigaction action{};
    action.sa_handler = note_interrupt;  // no SA_RESTART: waits end with EINTR
    for (std::size_t i = 0; i < kSignals.size(); ++i)
      ::sigaction(kSignals[i], &action, &before_[i]);
  }
  ~InterruptGuard() {
    for (std::size_t i = 0; i < kSignals.size(); ++i)
      ::sigaction(kSignals[i], &before_[i], nullptr);
  }
  static void check() {
    if (interrupted != 0) fail_setup("interrupted: nothing of the lab is left");
  }

 private:
  static constexpr std::array kSignals = {SIGINT, SIGTERM, SIGHUP};
  std::array<struct sigaction, 3> before_{};
};

// Directories that must be seen inside the hosts even if they are in /tmp: this program's, and the
// one the user works in.
std::vector<std::string> directories_to_keep() {
  std::error_code ignored;
  std::vector<std::string> keep;
  const auto work = std::filesystem::current_path(ignored).string();
  if (work.size() > 1) keep.push_back(work);
  keep.push_back(std::filesystem::read_symlink("/proc/self/exe", ignored).parent_path().string());
  return keep;
}

struct HolderProcess {
  os::Child process;
  os::Fd channel;

  // Without "keep" the end of the channel ends the holder, and the lab.
  void abandon() {
    channel.reset();
    (void)process.wait(kDownLimit);
  }
  void keep() {
    (void)!::write(channel.number(), kKeepWord.data(), kKeepWord.size());
    process.detach();
  }
};

HolderProcess start_holder(const StateDirectory& directory, const std::string& name,
                           const os::Fd& lock) {
  os::SocketPair channel = os::make_socket_pair();
  const os::Fd log(::open(directory.file("holder.log").c_str(),
                          O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600));
  if (!log) fail_setup("{}", errno_text("open the holder's log"));
  os::Command command{.argv = {"/proc/self/exe", "lab", "hold", name}};
  for (const auto& path : directories_to_keep()) command.argv.push_back(path);
  command.fds = {{channel.theirs.number(), kChannelFd}, {lock.number(), kLockFd}};
  command.stdout_fd = command.stderr_fd = log.number();
  return {os::Child::spawn_detached(std::move(command)), std::move(channel.ours)};
}

// What the holder says until it says that all is ready.
void wait_until_ready(const HolderProcess& holder) {
  std::string words;
  std::array<char, 4096> buffer;
  while (words != kReadyWord) {
    pollfd ready{.fd = holder.channel.number(), .events = POLLIN, .revents = 0};
    ::poll(&ready, 1, -1);
    InterruptGuard::check();
    const ssize_t got = ::recv(holder.channel.number(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (got <= 0)
      fail_setup("the lab did not start: {}", words.empty() ? "its holder ended" : words);
    words.append(buffer.data(), static_cast<std::size_t>(got));
  }
}

std::string config_text(const UpOptions& options) {
  if (options.config_path.empty()) return std::string(kDefaultLab);
  return read_file(options.config_path, kMaxConfigBytes);
}

bool is_same_lab(const StateDirectory& directory, const std::string& yaml) {
  return read_file(directory.file("lab.yaml"), kMaxConfigBytes) == yaml;
}

}  // namespace

bool bring_up(const UpOptions& options) {
  const std::string yaml = config_text(options);
  const auto lab =
      parse_lab(yaml, options.config_path.empty() ? "the built-in lab" : options.config_path);
  if (!lab) throw SetupError(lab.error().text);
  const StateDirectory directory(options.name);
  directory.make();
  os::Fd lock = directory.try_lock();
  if (!lock) {
    if (!directory.load()) fail_setup("another `lab up` is starting the lab {}", options.name);
    if (is_same_lab(directory, yaml)) return false;
    fail_setup(
        "the lab {} is up with another configuration: `godwit lab down` first, or choose --name",
        options.name);
  }
  const InterruptGuard guard;
  if (directory.load()) {
    // Crashed: its holder is gone, so everything it started is too, or is being ended now.
    clean_up(directory);
    directory.make();
    lock = directory.try_lock();
    if (!lock) fail_setup("another `lab up` is starting the lab {}", options.name);
  }
  write_file(directory.file("lab.yaml"), yaml);
  HolderProcess holder = start_holder(directory, options.name, lock);
  lock.reset();
  try {
    wait_until_ready(holder);
    if (options.agents && !agent_program().empty()) {
      (void)ask(directory.file("holder.sock"), {{"do", "agents"}, {"on", true}});
      start_fleet(*directory.load(), InterruptGuard::check);
    }
    InterruptGuard::check();
  } catch (const std::exception& error) {
    holder.abandon();
    // A holder that was killed left its directory.
    if (directory.exists() && directory.try_lock()) clean_up(directory);
    InterruptGuard::check();  // a child that died of Ctrl-C is not the news
    throw;
  }
  holder.keep();
  return true;
}

bool bring_down(const std::string& name) {
  const StateDirectory directory(name);
  if (!directory.exists()) return false;
  const auto state = directory.load();
  if (state) {
    if (auto holder = os::Child::adopt(state->holder)) {
      const auto asked = ask(directory.file("holder.sock"), {{"do", "down"}});
      if (!asked) (void)holder->kill(SIGTERM);  // still building, or its socket is gone
      (void)holder->wait(kDownLimit);
    }
  }
  // What is still here was left by a crash, or by a holder that does not answer.
  if (!directory.exists()) return true;
  const os::Fd lock = directory.try_lock();
  if (!lock && !state) fail_setup("the lab {} is just starting: try again", name);
  clean_up(directory);
  return true;
}

}  // namespace godwit::lab
