// Starting a program. Between fork and exec only async-signal-safe calls are made, and the ids are
// set by raw system calls: glibc's setuid() would try to change all threads of a process (nptl(7)).
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <limits>

extern "C" {
#include <sys/pidfd.h>  // glibc 2.36 forgot to declare these as C
}

#include "base/check.hh"
#include "os/child.hh"

namespace godwit::os {
namespace {

// What the new process reports through a close-on-exec pipe when it fails before the program runs.
struct Failure {
  int error;
  char step[24];
};

// Everything the new process needs, prepared before fork: no allocation afterwards.
struct Plan {
  const Command& command;
  std::string program;
  std::vector<char*> argv;
  std::vector<char*> env;
  std::vector<Command::PassedFd> fds;  // with stdin, stdout and stderr; sorted by target
  std::vector<int> staged;             // scratch: one number per entry of fds
  pid_t parent;
  int report;
  int gate;  // the program waits for a byte from it; -1: it does not
};

std::string find_program(const std::string& name) {
  if (name.find('/') != std::string::npos) return name;
  const char* path = ::getenv("PATH");
  std::string_view rest = path != nullptr ? path : "/usr/sbin:/usr/bin:/sbin:/bin";
  while (!rest.empty()) {
    const auto end = std::min(rest.find(':'), rest.size());
    const auto candidate = fmt::format("{}/{}", rest.substr(0, end), name);
    if (::access(candidate.c_str(), X_OK) == 0) return candidate;
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  fail_setup("run {}: there is no such program in PATH; install it", name);
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (const auto& text : texts) result.push_back(const_cast<char*>(text.c_str()));
  result.push_back(nullptr);
  return result;
}

[[noreturn]] void give_up(const Plan& plan, const char* step) {
  Failure failure{.error = errno, .step = {}};
  std::strncpy(failure.step, step, sizeof failure.step - 1);
  [[maybe_unused]] const auto written = ::write(plan.report, &failure, sizeof failure);
  ::_exit(127);
}

// We die or change our mind: the pipe ends instead.
void wait_at_gate(const Plan& plan) {
  if (plan.gate < 0) return;
  char go = 0;
  if (::read(plan.gate, &go, 1) != 1) ::_exit(127);
}

// Puts each descriptor under its target number and closes everything else but the report pipe. Two
// steps, since a target may be the number of a descriptor still needed: first all go out of the
// way.
void place_descriptors(Plan& plan) {
  int top = plan.report + 1;
  for (const auto& fd : plan.fds) top = std::max(top, fd.target + 1);
  for (std::size_t i = 0; i < plan.fds.size(); ++i) {
    plan.staged[i] = ::fcntl(plan.fds[i].fd, F_DUPFD_CLOEXEC, top);
    if (plan.staged[i] < 0) give_up(plan, "pass a descriptor");
  }
  const int report = ::fcntl(plan.report, F_DUPFD_CLOEXEC, top);
  if (report < 0) give_up(plan, "pass a descriptor");
  plan.report = report;
  for (std::size_t i = 0; i < plan.fds.size(); ++i) {
    if (::dup2(plan.staged[i], plan.fds[i].target) < 0) give_up(plan, "pass a descriptor");
  }
  // The gaps between the targets, and all above, close when the program starts.
  unsigned next = 0;
  for (const auto& fd : plan.fds) {
    const auto target = static_cast<unsigned>(fd.target);
    if (target > next) ::syscall(SYS_close_range, next, target - 1, 4U /* CLOSE_RANGE_CLOEXEC */);
    next = target + 1;
  }
  ::syscall(SYS_close_range, next, std::numeric_limits<unsigned>::max(), 4U);
}

// Ambient capabilities (capabilities(7)), which an agent without root has from its service manager,
// would pass through both the change of user and exec.
void become_user(const Plan& plan) {
  ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  if (!plan.command.user) return;
  const auto& user = *plan.command.user;
  if (::syscall(SYS_setgroups, user.groups.size(), user.groups.data()) != 0 ||
      ::syscall(SYS_setresgid, user.gid, user.gid, user.gid) != 0 ||
      ::syscall(SYS_setresuid, user.uid, user.uid, user.uid) != 0) {
    give_up(plan, "change the user");
  }
}

void reset_signals() {
  for (int signal = 1; signal < NSIG; ++signal) ::signal(signal, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

[[noreturn]] void become(Plan& plan) {
  const Command& command = plan.command;
  reset_signals();
  wait_at_gate(plan);
  if ((command.new_session || command.whole_session) && ::setsid() < 0)
    give_up(plan, "start a session");
  if (command.netns_fd >= 0 && ::setns(command.netns_fd, CLONE_NEWNET) != 0) {
    give_up(plan, "enter the namespace");
  }
  place_descriptors(plan);
  if (command.umask) ::umask(*command.umask);
  if (!command.cwd.empty() && ::chdir(command.cwd.c_str()) != 0) {
    give_up(plan, "change directory");
  }
  become_user(plan);
  if (command.dies_with_us) {  // after the change of user, which clears it (prctl(2))
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != plan.parent) ::_exit(127);  // we were too late
  }
  ::execve(plan.program.c_str(), plan.argv.data(), plan.env.data());
  give_up(plan, "execute");
}

Fd open_null() {
  Fd fd(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!fd) fail_setup("{}", errno_text("open /dev/null"));
  return fd;
}

Plan make_plan(const Command& command, int null_fd, int report, int gate) {
  CHECK(!command.argv.empty());
  Plan plan{.command = command,
            .program = find_program(command.argv[0]),
            .argv = pointers(command.argv),
            .env = {},
            .fds = command.fds,
            .staged = {},
            .parent = ::getpid(),
            .report = report,
            .gate = gate};
  if (command.env) {
    plan.env = pointers(*command.env);
  } else {
    for (char** entry = ::environ; *entry != nullptr; ++entry) plan.env.push_back(*entry);
    plan.env.push_back(nullptr);
  }
  plan.fds.push_back({command.stdin_fd >= 0 ? command.stdin_fd : null_fd, 0});
  plan.fds.push_back({command.stdout_fd >= 0 ? command.stdout_fd : STDOUT_FILENO, 1});
  plan.fds.push_back({command.stderr_fd >= 0 ? command.stderr_fd : STDERR_FILENO, 2});
  std::ranges::sort(plan.fds, {}, &Command::PassedFd::target);
  const auto twice = std::ranges::adjacent_find(plan.fds, {}, &Command::PassedFd::target);
  CHECK(twice == plan.fds.end(), "two descriptors for the number {}", twice->target);
  plan.staged.resize(plan.fds.size(), -1);
  return plan;
}

struct Pipe {
  Pipe() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) fail_setup("{}", errno_text("make a pipe"));
    read = Fd(ends[0]);
    write = Fd(ends[1]);
  }
  Fd read, write;
};

// Throws what went wrong, told through the pipe, whose end means that the program runs.
void await_start(const Plan& plan, Pipe& report) {
  report.write.reset();
  Failure failure{};
  ssize_t got = 0;
  do {
    got = ::read(report.read.number(), &failure, sizeof failure);
  } while (got < 0 && errno == EINTR);
  if (got != sizeof failure) return;
  failure.step[sizeof failure.step - 1] = '\0';
  fail_setup("start {}: {}: {}", plan.program, failure.step, std::strerror(failure.error));
}

}  // namespace

Child Child::spawn(const Command& command) {
  const Fd null = open_null();
  Pipe report;
  std::optional<Pipe> gate;
  if (command.before_start) gate.emplace();
  Plan plan =
      make_plan(command, null.number(), report.write.number(), gate ? gate->read.number() : -1);
  // All signals wait until the new process has none of our handlers.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t pid = ::fork();
  if (pid == 0) {
    if (gate) ::close(gate->write.number());  // else the pipe would not end with our parent
    become(plan);
  }
  const int fork_error = errno;
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  errno = fork_error;
  if (pid < 0) fail_setup("{}", errno_text(fmt::format("start {}", command.argv[0])));
  Fd pidfd(static_cast<int>(::pidfd_open(pid, 0)));  // not reaped yet, so it is this process
  CHECK(pidfd, "pidfd_open: errno {}", errno);
  const auto identity = identify(pid);
  Child child({.pid = pid, .start_time = identity ? identity->start_time : 0}, std::move(pidfd));
  child.whole_session_ = command.whole_session;
  if (gate) {
    command.before_start(child.identity());
    [[maybe_unused]] const auto opened = ::write(gate->write.number(), "", 1);
  }
  await_start(plan, report);
  return child;
}

Child Child::spawn_detached(Command command) {
  command.new_session = true;
  Child child = spawn(command);
  child.detach();
  return child;
}

namespace {

// The input in a file of its own: it needs no pumping, raises no SIGPIPE, and can be reopened as
// /dev/stdin, which nft(8) does.
Fd input_file(std::string_view input) {
  Fd file(::memfd_create("godwit-input", MFD_CLOEXEC));
  if (!file) fail_setup("{}", errno_text("make a file for a program's input"));
  while (!input.empty()) {
    const auto written = ::write(file.number(), input.data(), input.size());
    if (written <= 0) fail_setup("{}", errno_text("write a program's input"));
    input.remove_prefix(static_cast<std::size_t>(written));
  }
  ::lseek(file.number(), 0, SEEK_SET);
  return file;
}

// Reads what is there; closes `fd` at its end.
void collect(Fd& fd, std::string& into) {
  std::array<char, 16 * 1024> buffer;
  const auto got = ::read(fd.number(), buffer.data(), buffer.size());
  if (got > 0) {
    const auto room = kOutputLimit - into.size();
    into.append(buffer.data(), std::min(static_cast<std::size_t>(got), room));
  } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
    fd.reset();
  }
}

// Until both pipes end, or the time does.
void collect_both(Fd& out, Fd& err, Output& output, Instant deadline) {
  const MonotonicSystemClock clock;
  set_nonblocking(out);
  set_nonblocking(err);
  while (out || err) {
    const Nanoseconds rest = deadline - clock.now();
    if (rest <= Nanoseconds(0)) return;
    std::array<pollfd, 2> polls{{{out.number(), POLLIN, 0}, {err.number(), POLLIN, 0}}};
    const auto timeout = duration_cast<milliseconds>(rest).count() + 1;
    if (::poll(polls.data(), polls.size(), static_cast<int>(timeout)) < 0) continue;  // EINTR
    if (polls[0].revents != 0) collect(out, output.out);
    if (polls[1].revents != 0) collect(err, output.err);
  }
}

}  // namespace

Result<Output> run(Command command, std::string_view input, Nanoseconds limit) try {
  const MonotonicSystemClock clock;
  const Instant deadline = clock.now() + limit;
  const Fd in = input_file(input);
  Pipe out;
  Pipe err;
  command.stdin_fd = in.number();
  command.stdout_fd = out.write.number();
  command.stderr_fd = err.write.number();
  Child child = Child::spawn(command);
  out.write.reset();
  err.write.reset();
  Output output;
  collect_both(out.read, err.read, output, deadline);
  const auto status = child.wait(std::max(deadline - clock.now(), Nanoseconds(0)));
  if (!status) return fail("run {}: it took longer than {}", command.argv[0], to_text(limit));
  output.status = *status;
  return output;
} catch (const SetupError& error) {
  return fail("{}", error.what());
}

}  // namespace godwit::os
