#include "os/child.hh"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <fstream>
#include <iterator>

extern "C" {
#include <sys/pidfd.h>  // glibc 2.36 forgot to declare these as C
}

#include "base/check.hh"

namespace godwit::os {
namespace {

// glibc 2.36 has no waitid() by pidfd under this name everywhere; linux/wait.h: P_PIDFD.
constexpr auto kByPidfd = static_cast<idtype_t>(3);
constexpr int kStartTimeField = 22;  // proc(5), counted from 1
constexpr Nanoseconds kForever = std::chrono::hours(24 * 365);

bool wait_readable(const Fd& pidfd, Nanoseconds limit) {
  pollfd poll{.fd = pidfd.number(), .events = POLLIN, .revents = 0};
  const MonotonicSystemClock clock;
  const Instant deadline = clock.now() + limit;
  for (;;) {
    const Nanoseconds rest = std::max(deadline - clock.now(), Nanoseconds(0));
    const auto whole = duration_cast<seconds>(rest);
    const timespec timeout{.tv_sec = whole.count(), .tv_nsec = (rest - whole).count()};
    const int ready = ::ppoll(&poll, 1, &timeout, nullptr);
    if (ready > 0) return true;
    if (ready == 0) return false;
    CHECK(errno == EINTR, "ppoll on a pidfd: errno {}", errno);
  }
}

ExitStatus reap_process(const Fd& pidfd) {
  siginfo_t info{};
  // A process that is not our child cannot be reaped by us: how it ended stays unknown.
  if (::waitid(kByPidfd, static_cast<id_t>(pidfd.number()), &info, WEXITED) != 0) return {};
  if (info.si_code == CLD_EXITED) return {.code = info.si_status};
  return {.signal = info.si_status};
}

}  // namespace

std::optional<ProcessIdentity> identify(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  // "PID (NAME) S ...": the name may hold anything, also ") ".
  const auto name_end = text.rfind(") ");
  if (name_end == std::string::npos) return std::nullopt;
  std::size_t at = name_end + 1;
  for (int field = 2; field < kStartTimeField; ++field) {
    if (field > 2) at = text.find(' ', at + 1);
    if (at == std::string::npos) return std::nullopt;
  }
  ProcessIdentity identity{.pid = pid};
  const char* begin = text.data() + at + 1;
  const auto [end, error] = std::from_chars(begin, text.data() + text.size(), identity.start_time);
  if (error != std::errc{}) return std::nullopt;
  return identity;
}

std::string ExitStatus::text() const {
  if (code) return fmt::format("exit status {}", *code);
  if (!signal) return "ended";
  const char* name = ::sigabbrev_np(*signal);
  return name != nullptr ? fmt::format("killed by SIG{}", name)
                         : fmt::format("killed by signal {}", *signal);
}

Result<Child> Child::adopt(const ProcessIdentity& identity) {
  // Order matters: once the pidfd is held, the pid that /proc shows is this process's or nobody's.
  Fd pidfd(static_cast<int>(::pidfd_open(identity.pid, 0)));
  if (!pidfd) {
    return fail("{}", errno_text(fmt::format("adopt process {}", identity.pid)));
  }
  const auto found = identify(identity.pid);
  if (!found || *found != identity || wait_readable(pidfd, Nanoseconds(0))) {
    return fail("adopt process {}: it has ended", identity.pid);
  }
  Child child(identity, std::move(pidfd));
  child.detached_ = true;
  return child;
}

Child& Child::operator=(Child&& other) noexcept {
  if (this == &other) return *this;
  end();
  CHECK(!other.watch_, "a Child that is being watched cannot be moved");
  identity_ = std::exchange(other.identity_, {});
  pidfd_ = std::move(other.pidfd_);
  detached_ = other.detached_;
  whole_session_ = other.whole_session_;
  status_ = std::exchange(other.status_, std::nullopt);
  return *this;
}

void Child::end() {
  watch_.reset();
  if (!pidfd_ || detached_ || status_) return;
  static_cast<void>(kill(SIGKILL));
  status_ = wait();
}

// Until it is reaped the pid is its own, and with it the number of its group.
ExitStatus Child::reap() {
  if (whole_session_) ::kill(-pid(), SIGKILL);
  return reap_process(pidfd_);
}

void Child::on_exit(Loop& loop, std::move_only_function<void(ExitStatus)> handler) {
  CHECK(pidfd_ && !watch_);
  watch_ = loop.watch(pidfd_, EPOLLIN, [this, handler = std::move(handler)](auto) mutable {
    if (!status_) status_ = reap();
    watch_.reset();
    const ExitStatus status = *status_;
    handler(status);
  });
}

std::optional<ExitStatus> Child::poll() { return wait(Nanoseconds(0)); }

ExitStatus Child::wait() { return *wait(kForever); }

std::optional<ExitStatus> Child::wait(Nanoseconds limit) {
  CHECK(pidfd_);
  if (!status_ && wait_readable(pidfd_, limit)) status_ = reap();
  return status_;
}

Result<> Child::kill(int signal) const {
  CHECK(pidfd_);
  if (::pidfd_send_signal(pidfd_.number(), signal, nullptr, 0) == 0) return {};
  return fail("{}", errno_text(fmt::format("send signal {} to process {}", signal, pid())));
}

Result<Fd> Child::copy_fd(int number) const {
  CHECK(pidfd_);
  Fd copy(static_cast<int>(::pidfd_getfd(pidfd_.number(), number, 0)));  // it is close-on-exec
  if (copy) return copy;
  return fail("{}", errno_text(fmt::format("copy descriptor {} of process {}", number, pid())));
}

}  // namespace godwit::os
