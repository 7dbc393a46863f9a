#include "os/loop.hh"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>

#include "base/check.hh"
#include "base/result.hh"

namespace godwit::os {
namespace {

constexpr std::uint64_t kWakeKey = 0;
constexpr int kEventsPerRound = 64;
constexpr Nanoseconds kForever = std::chrono::hours(1);

}  // namespace

Loop::Watch& Loop::Watch::operator=(Watch&& other) noexcept {
  if (this != &other) {
    reset();
    loop_ = std::exchange(other.loop_, nullptr);
    fd_ = other.fd_;
    key_ = other.key_;
  }
  return *this;
}

void Loop::Watch::reset() {
  if (loop_ != nullptr) std::exchange(loop_, nullptr)->remove(fd_, key_);
}

void Loop::Watch::set_events(std::uint32_t events) {
  CHECK(loop_ != nullptr);
  epoll_event event{.events = events, .data = {.u64 = key_}};
  CHECK(::epoll_ctl(loop_->epoll_.number(), EPOLL_CTL_MOD, fd_, &event) == 0, "fd {}: errno {}",
        fd_, errno);
}

Loop::Timer& Loop::Timer::operator=(Timer&& other) noexcept {
  if (this != &other) {
    reset();
    loop_ = std::exchange(other.loop_, nullptr);
    due_ = other.due_;
    key_ = other.key_;
  }
  return *this;
}

void Loop::Timer::reset() {
  if (loop_ != nullptr) std::exchange(loop_, nullptr)->timers_.erase({due_, key_});
}

Loop::Loop()
    : epoll_(::epoll_create1(EPOLL_CLOEXEC)), wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!epoll_ || !wake_) fail_setup("{}", errno_text("make an event loop"));
  epoll_event event{.events = EPOLLIN, .data = {.u64 = kWakeKey}};
  CHECK(::epoll_ctl(epoll_.number(), EPOLL_CTL_ADD, wake_.number(), &event) == 0);
}

Loop::~Loop() = default;

Loop::Watch Loop::watch(const Fd& fd, std::uint32_t events, Handler handler) {
  const std::uint64_t key = next_key_++;
  epoll_event event{.events = events, .data = {.u64 = key}};
  if (::epoll_ctl(epoll_.number(), EPOLL_CTL_ADD, fd.number(), &event) != 0) {
    fail_setup("{}", errno_text("watch a file descriptor"));
  }
  watched_[key] = std::make_shared<Watched>(Watched{std::move(handler)});
  return Watch(this, fd.number(), key);
}

void Loop::remove(int fd, std::uint64_t key) {
  ::epoll_ctl(epoll_.number(), EPOLL_CTL_DEL, fd, nullptr);
  watched_.erase(key);
}

Loop::Timer Loop::at(Instant due, Task task) {
  const std::uint64_t key = next_key_++;
  timers_.emplace(std::pair(due, key), std::move(task));
  return Timer(this, due, key);
}

Loop::Timer Loop::after(Nanoseconds delay, Task task) { return at(now() + delay, std::move(task)); }

Loop::Watch Loop::on_signals(const std::vector<int>& signals,
                             std::move_only_function<void(int)> handler) {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : signals) sigaddset(&set, signal);
  CHECK(::pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0);
  signal_fds_.emplace_back(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  const int fd = signal_fds_.back().number();
  return watch(signal_fds_.back(), EPOLLIN, [fd, handler = std::move(handler)](auto) mutable {
    signalfd_siginfo info{};
    while (::read(fd, &info, sizeof info) == sizeof info) handler(static_cast<int>(info.ssi_signo));
  });
}

void Loop::post(Task task) {
  {
    const std::lock_guard lock(posted_mutex_);
    posted_.push_back(std::move(task));
  }
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(wake_.number(), &one, sizeof one);
}

void Loop::stop() {
  post([this] {
    const std::lock_guard lock(posted_mutex_);
    stopping_ = true;
  });
}

void Loop::run() {
  for (;;) {
    run_once(kForever);
    const std::lock_guard lock(posted_mutex_);
    if (std::exchange(stopping_, false)) return;
  }
}

Nanoseconds Loop::until_next_timer(Nanoseconds limit) const {
  if (timers_.empty()) return limit;
  return std::clamp(timers_.begin()->first.first - now(), Nanoseconds(0), limit);
}

void Loop::run_once(Nanoseconds limit) {
  const Nanoseconds wait = until_next_timer(limit);
  const auto whole = duration_cast<seconds>(wait);
  const timespec timeout{.tv_sec = whole.count(), .tv_nsec = (wait - whole).count()};
  std::array<epoll_event, kEventsPerRound> events;
  const int count =
      ::epoll_pwait2(epoll_.number(), events.data(), kEventsPerRound, &timeout, nullptr);
  CHECK(count >= 0 || errno == EINTR, "epoll_pwait2: errno {}", errno);
  const Instant began = now();
  for (int i = 0; i < count; ++i) {
    const auto& event = events[static_cast<std::size_t>(i)];
    const std::uint64_t key = event.data.u64;  // a copy: the kernel's struct is packed
    if (key == kWakeKey) {
      run_posted();
      continue;
    }
    // A handler may end this or any other watch: look it up now, and keep it while it runs.
    const auto found = watched_.find(key);
    if (found == watched_.end()) continue;
    const auto keep = found->second;
    keep->handler(event.events);
  }
  run_timers();
  count_round(began);
}

void Loop::count_round(Instant began) {
  const Nanoseconds took = now() - began;
  ++stats_.rounds;
  stats_.busy += took;
  const auto bound = std::ranges::lower_bound(kRoundBounds, took);
  if (bound != kRoundBounds.end()) {
    ++stats_.within[static_cast<std::size_t>(bound - kRoundBounds.begin())];
  }
}

void Loop::run_posted() {
  std::uint64_t ignored = 0;
  [[maybe_unused]] const auto got = ::read(wake_.number(), &ignored, sizeof ignored);
  std::vector<Task> tasks;
  {
    const std::lock_guard lock(posted_mutex_);
    tasks.swap(posted_);
  }
  for (auto& task : tasks) task();
}

void Loop::run_timers() {
  // A timer set by one that runs here waits for the next round even if it is due: a task that sets
  // itself again at once must not keep descriptors from being served.
  const Instant start = now();
  const std::uint64_t first_new = next_key_;
  auto at = timers_.begin();
  while (at != timers_.end() && at->first.first <= start) {
    if (at->first.second >= first_new) {
      ++at;
      continue;
    }
    auto node = timers_.extract(at);
    node.mapped()();
    at = timers_.begin();  // the task may have cancelled any other
  }
}

}  // namespace godwit::os
