#include "lab/node.hh"

#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstring>

#include "base/result.hh"
#include "lab/state.hh"

namespace godwit::lab {
namespace {

constexpr std::string_view kReady = "ready";
constexpr std::size_t kMessageLimit = 4096;

void set_loopback_up() {
  const os::Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  if (!socket || ::ioctl(socket.number(), SIOCSIFFLAGS, &request) != 0) {
    fail_setup("{}", errno_text("set lo up"));
  }
}

void set_sysctls(bool forwards) {
  // Duplicate address detection would keep IPv6 silent for a second; routers know no neighbours
  // that announce routes.
  write_file("/proc/sys/net/ipv6/conf/all/accept_dad", "0");
  write_file("/proc/sys/net/ipv6/conf/default/accept_dad", "0");
  write_file("/proc/sys/net/ipv6/conf/all/accept_ra", "0");
  write_file("/proc/sys/net/ipv6/conf/default/accept_ra", "0");
  // By several ways a flow's packets come from elsewhere than they go to, and where addresses are
  // translated, back to where they came from. Interfaces start with what is the default then.
  for (const char* const which : {"all", "default"}) {
    write_file(fmt::format("/proc/sys/net/ipv4/conf/{}/rp_filter", which), "0");
    write_file(fmt::format("/proc/sys/net/ipv4/conf/{}/send_redirects", which), "0");
  }
  // Who may ping without privileges: any group (as systemd sets it).
  if (!forwards) return;
  write_file("/proc/sys/net/ipv4/ip_forward", "1");
  write_file("/proc/sys/net/ipv6/conf/all/forwarding", "1");
}

void become_node(const NodeSpec& spec) {
  if (::unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC) != 0) {
    fail_setup("{}", errno_text("make the node's namespaces"));
  }
  if (::sethostname(spec.name.c_str(), spec.name.size()) != 0) {
    fail_setup("{}", errno_text("set the host name"));
  }
  enter_host_mounts(spec.mounts);
  set_loopback_up();
  set_sysctls(spec.forwards);
}

// PID 1: signals without a handler do not reach it from inside (pid_namespaces(7)).
[[noreturn]] void reap_for_ever() {
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  ::sigprocmask(SIG_SETMASK, &child, nullptr);
  for (;;) {
    while (::waitpid(-1, nullptr, WNOHANG) > 0) {
    }
    ::sigwaitinfo(&child, nullptr);
  }
}

[[noreturn]] void run_init(const NodeSpec& spec, int report, int holders_end) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::prctl(PR_SET_NAME, fmt::format("lab:{}", spec.name).substr(0, 15).c_str());
  ::close(holders_end);
  for (int signal = 1; signal < NSIG; ++signal) ::signal(signal, SIG_DFL);
  ::signal(SIGPIPE, SIG_IGN);
  std::string words(kReady);
  try {
    become_node(spec);
  } catch (const std::exception& error) {
    words = error.what();
  }
  // If the holder died before the first line above, nobody reads this: then so does the node.
  const ssize_t written = ::write(report, words.data(), words.size());
  if (written < 0 || words != kReady) ::_exit(1);
  // Nothing of the holder's stays open here: its sockets must close when it dies.
  ::chdir("/");
  ::close_range(0, ~0U, 0);
  ::open("/dev/null", O_RDWR);
  ::dup2(0, 1);
  ::dup2(0, 2);
  reap_for_ever();
}

// fork(2) into a new PID namespace. Not by unshare(2), after which this process could not come back
// to its own PID namespace where it is root of a user namespace only. The raw call skips the C
// library's fork handlers, which is sound as this process has one thread.
pid_t fork_into_new_pid_namespace() {
  const long pid = ::syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, nullptr, nullptr, nullptr, nullptr);
  if (pid < 0) fail_setup("{}", errno_text("make a PID namespace"));
  return static_cast<pid_t>(pid);
}

std::string read_report(const os::Fd& from) {
  std::string words;
  std::array<char, 256> buffer;
  ssize_t got = 0;
  while (words.size() < kMessageLimit && words != kReady &&
         (got = ::read(from.number(), buffer.data(), buffer.size())) > 0) {
    words.append(buffer.data(), static_cast<std::size_t>(got));
  }
  return words;
}

}  // namespace

os::ProcessIdentity start_node(const NodeSpec& spec) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) fail_setup("{}", errno_text("make a pipe"));
  const os::Fd from_node(ends[0]);
  os::Fd to_us(ends[1]);
  const pid_t pid = fork_into_new_pid_namespace();
  if (pid == 0) run_init(spec, to_us.number(), from_node.number());
  to_us.reset();
  const std::string words = read_report(from_node);
  const auto identity = os::identify(pid);
  if (words != kReady || !identity) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    fail_setup("start {}: {}", spec.name, words.empty() ? "its init ended" : words);
  }
  return *identity;
}

void stop_node(const os::ProcessIdentity& init) {
  ::kill(init.pid, SIGKILL);  // our child, not yet reaped: the pid is still its own
  ::waitpid(init.pid, nullptr, 0);
}

}  // namespace godwit::lab
