#pragma once
// Processes: started by us or adopted, watched through a pidfd (pidfd_open(2)), so that a recycled
// pid is never mistaken for the process meant.
//
// A Child is killed and reaped when destroyed, unless detached. A detached process has its own
// session and outlives us; its ProcessIdentity in a journal is what adopt() needs after a restart.
#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hh"
#include "os/loop.hh"

namespace godwit::os {

// Names one process for as long as the host is up: pids are recycled, pairs with start times not.
struct ProcessIdentity {
  pid_t pid = -1;
  std::uint64_t start_time = 0;  // clock ticks since boot, proc(5) stat field 22
  bool operator==(const ProcessIdentity&) const = default;
};
// Nothing when there is no such process.
std::optional<ProcessIdentity> identify(pid_t pid);

// What to start. Descriptors are only borrowed for the call of spawn().
struct Command {
  std::vector<std::string> argv{};  // argv[0] is looked up in PATH unless it has a slash
  std::optional<std::vector<std::string>> env{};  // "NAME=value"; unset: ours
  // The process gets `fd` under the number `target`; everything not named here is closed in it.
  struct PassedFd {
    int fd = -1;
    int target = -1;
  };
  std::vector<PassedFd> fds{};
  int stdin_fd = -1;   // -1: /dev/null
  int stdout_fd = -1;  // -1: ours
  int stderr_fd = -1;  // -1: ours
  struct User {
    uid_t uid;
    gid_t gid;
    std::vector<gid_t> groups{};  // supplementary, replacing ours
  };
  std::optional<User> user{};     // unset: ours, in either case without our ambient capabilities
  std::string cwd{};              // empty: ours
  std::optional<mode_t> umask{};  // unset: ours
  bool new_session = false;    // setsid(2): survives our terminal and our process group's signals
  bool whole_session = false;  // new_session; what it leaves in its group is killed with its end
  bool dies_with_us = false;   // PR_SET_PDEATHSIG; when the *thread* that calls spawn() ends
  int netns_fd = -1;           // enters this network namespace first
  // Called once the process exists and before the program runs, so that it can be recorded first.
  // If it throws, or we die meanwhile, the program never runs.
  std::function<void(const ProcessIdentity&)> before_start{};
};

struct ExitStatus {
  std::optional<int> code{};
  std::optional<int> signal{};  // killed by it
  // Neither is known of a process that was adopted.
  bool success() const { return code == 0; }
  std::string text() const;  // "exit status 1", "killed by SIGSEGV", "ended"
};

class Child final {
 public:
  Child() = default;
  // Throws SetupError when the process cannot be made or the program cannot be run.
  static Child spawn(const Command& command);
  // The same, in a session of its own, detached.
  static Child spawn_detached(Command command);
  // A running process that need not be our child. Fails when it has ended or the pid is another's.
  static Result<Child> adopt(const ProcessIdentity& identity);
  Child(Child&& other) noexcept { *this = std::move(other); }
  Child& operator=(Child&& other) noexcept;
  ~Child() { end(); }

  pid_t pid() const { return identity_.pid; }
  const ProcessIdentity& identity() const { return identity_; }
  const Fd& pidfd() const { return pidfd_; }
  explicit operator bool() const { return static_cast<bool>(pidfd_); }

  // `handler` runs once in the loop; it may destroy this Child.
  void on_exit(Loop& loop, std::move_only_function<void(ExitStatus)> handler);
  std::optional<ExitStatus> poll();  // nothing while it runs
  ExitStatus wait();                 // blocks
  // Blocks for at most `limit`; nothing when it still runs then.
  std::optional<ExitStatus> wait(Nanoseconds limit);
  // Sending to a process that has ended is an error, never another process's signal.
  Result<> kill(int signal) const;
  void detach() { detached_ = true; }  // destroying this leaves the process alone
  // A descriptor of the process, duplicated into ours (pidfd_getfd(2); needs PTRACE_MODE_ATTACH).
  Result<Fd> copy_fd(int number) const;

 private:
  Child(ProcessIdentity identity, Fd pidfd) : identity_(identity), pidfd_(std::move(pidfd)) {}
  void end();
  ExitStatus reap();

  ProcessIdentity identity_;
  Fd pidfd_;
  bool detached_ = false, whole_session_ = false;
  std::optional<ExitStatus> status_;
  Loop::Watch watch_;
};

// Runs a program to its end with `input` on its stdin, e.g. nft(8) with a ruleset. Blocks.
struct Output {
  ExitStatus status;
  std::string out;  // each bounded by kOutputLimit, the rest is dropped
  std::string err;
};
constexpr std::size_t kOutputLimit = 1024 * 1024;
// Fails when it cannot be started or takes longer than `limit` (it is killed then); a program that
// fails is still a result.
Result<Output> run(Command command, std::string_view input = {}, Nanoseconds limit = seconds(10));

}  // namespace godwit::os
