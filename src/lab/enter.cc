#include "lab/enter.hh"

#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <filesystem>

namespace godwit::lab {
namespace {

constexpr int kNoSuchProgram = 127;
constexpr int kCannotRun = 126;
constexpr int kSignalBase = 128;

// Signals that somebody sends to `lab exec` are meant for the command. The terminal's own (Ctrl-C)
// reach the command directly, being in the same foreground group.
volatile pid_t forward_to = 0;
void forward(int signal) {
  if (forward_to > 0) ::kill(forward_to, signal);
}

bool same_user_namespace(pid_t pid) {
  struct stat theirs{};
  struct stat ours{};
  const auto path = fmt::format("/proc/{}/ns/user", pid);
  if (::stat(path.c_str(), &theirs) != 0 || ::stat("/proc/self/ns/user", &ours) != 0) {
    fail_setup("{}", errno_text("look at the lab's user namespace"));
  }
  return theirs.st_ino == ours.st_ino && theirs.st_dev == ours.st_dev;
}

void enter(const NodeState& node) {
  const auto init = os::Child::adopt(node.init);
  if (!init) fail_setup("enter {}: {}", node.name, init.error().text);
  int namespaces = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC;
  if (!same_user_namespace(node.init.pid)) namespaces |= CLONE_NEWUSER;
  std::error_code no_directory;
  const auto directory = std::filesystem::current_path(no_directory);
  if (::setns(init->pidfd().number(), namespaces) != 0) {
    fail_setup("{}", errno_text(fmt::format("enter {}", node.name)));
  }
  if (::chdir(directory.c_str()) != 0) (void)!::chdir("/");
}

// The lab's own programs come first in PATH, then what a root's shell has.
// Before entering: inside, /proc does not know this process.
void set_environment(const NodeState& node) {
  std::array<char, 4096> buffer{};
  const ssize_t length = ::readlink("/proc/self/exe", buffer.data(), buffer.size() - 1);
  const std::string self(buffer.data(), length > 0 ? static_cast<std::size_t>(length) : 0);
  const char* const path = std::getenv("PATH");
  ::setenv("PATH",
           fmt::format("{}:{}:/usr/sbin:/sbin", self.substr(0, self.rfind('/')),
                       path != nullptr ? path : "/usr/bin:/bin")
               .c_str(),
           1);
  ::setenv("GODWIT_LAB_HOST", node.name.c_str(), 1);
}

// Returns only when that failed, with the exit status to use; says why on `complain_to`.
int execute(const InsideCommand& command, int complain_to) {
  std::vector<char*> argv;
  for (const auto& argument : command.argv) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  ::execvp(argv[0], argv.data());
  const int error = errno;
  const auto text = errno_text(fmt::format("run {}", command.argv[0])) + "\n";
  (void)!::write(complain_to, text.data(), text.size());
  return error == ENOENT ? kNoSuchProgram : kCannotRun;
}

int status_of(int status) {
  return WIFSIGNALED(status) ? kSignalBase + WTERMSIG(status) : WEXITSTATUS(status);
}

int wait_for(pid_t pid) {
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return status_of(status);
}

int run_attached(const InsideCommand& command) {
  // A shell inside makes itself the terminal's foreground group; afterwards it is ours again.
  const pid_t foreground = ::isatty(0) != 0 ? ::tcgetpgrp(0) : -1;
  const pid_t pid = ::fork();
  if (pid < 0) fail_setup("{}", errno_text("fork"));
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::_exit(execute(command, 2));
  }
  forward_to = pid;
  for (const int signal : {SIGTERM, SIGHUP, SIGUSR1, SIGUSR2}) ::signal(signal, forward);
  for (const int signal : {SIGINT, SIGQUIT, SIGTTOU}) ::signal(signal, SIG_IGN);
  const int status = wait_for(pid);
  if (foreground > 0) ::tcsetpgrp(0, foreground);
  return status;
}

void redirect_to_log(const std::string& log) {
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  const int out =
      log.empty() ? null : ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (null < 0 || out < 0) {
    fmt::print(stderr, "{}\n", errno_text(fmt::format("open {}", log)));
    std::fflush(stderr);
    ::_exit(kCannotRun);
  }
  ::dup2(null, 0);
  ::dup2(out, 1);
  ::dup2(out, 2);
}

// The process between this one and the command: tells with its exit status whether the command
// runs.
[[noreturn]] void start_and_leave(const InsideCommand& command) {
  ::setsid();
  std::array<int, 2> started{};
  if (::pipe2(started.data(), O_CLOEXEC) != 0) ::_exit(kCannotRun);
  const pid_t pid = ::fork();
  if (pid < 0) ::_exit(kCannotRun);
  if (pid == 0) {
    const int complain_to = ::fcntl(2, F_DUPFD_CLOEXEC, 3);
    redirect_to_log(command.log);
    const int status = execute(command, complain_to);
    (void)!::write(started[1], &status, sizeof status);
    ::_exit(status);
  }
  ::close(started[1]);
  int status = 0;
  ::_exit(::read(started[0], &status, sizeof status) <= 0 ? 0 : status);  // exec closes the pipe
}

// Orphans are adopted by the init of their *parent's* namespace, so a parent inside is needed.
int run_detached(const InsideCommand& command) {
  const pid_t between = ::fork();
  if (between < 0) fail_setup("{}", errno_text("fork"));
  if (between == 0) start_and_leave(command);
  return wait_for(between);
}

}  // namespace

int run_inside(const NodeState& node, const InsideCommand& command) {
  if (!node.running()) fail_setup("{} is powered off: `lab start {}`", node.name, node.name);
  set_environment(node);
  enter(node);
  return command.detached ? run_detached(command) : run_attached(command);
}

}  // namespace godwit::lab
