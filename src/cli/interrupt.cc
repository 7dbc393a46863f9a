#include "cli/interrupt.hh"

#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/result.hh"

namespace godwit::cli {
namespace {

void add(const os::Fd& to, const os::Fd& fd) {
  epoll_event event{.events = EPOLLIN, .data = {}};
  if (!to || !fd || ::epoll_ctl(to.number(), EPOLL_CTL_ADD, fd.number(), &event) != 0) {
    fail_setup("{}", errno_text("watch for Ctrl-C"));
  }
}

}  // namespace

Interrupt::Interrupt(Nanoseconds limit, bool hang_up) : both_(::epoll_create1(EPOLL_CLOEXEC)) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  if (hang_up) sigaddset(&set, SIGHUP);
  ::pthread_sigmask(SIG_BLOCK, &set, &before_);
  signals_.reset(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  add(both_, signals_);
  if (limit == Nanoseconds(0)) return;
  deadline_.reset(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  const auto whole = duration_cast<seconds>(limit);
  const itimerspec when{.it_interval = {},
                        .it_value = {.tv_sec = whole.count(), .tv_nsec = (limit - whole).count()}};
  ::timerfd_settime(deadline_.number(), 0, &when, nullptr);
  add(both_, deadline_);
}

Interrupt::~Interrupt() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

Interrupt::Cause Interrupt::take() {
  signalfd_siginfo info{};
  if (::read(signals_.number(), &info, sizeof info) == sizeof info) return Cause::signal;
  pollfd late{.fd = deadline_.number(), .events = POLLIN, .revents = 0};
  if (deadline_ && ::poll(&late, 1, 0) == 1) return Cause::deadline;
  return Cause::none;
}

void Interrupt::wait(Nanoseconds time) const {
  pollfd watched{.fd = both_.number(), .events = POLLIN, .revents = 0};
  ::poll(&watched, 1, static_cast<int>(duration_cast<milliseconds>(time).count()));
}

}  // namespace godwit::cli
