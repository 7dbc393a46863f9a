#pragma once
// The event loop: epoll, timers, and tasks posted by other threads. One thread runs one Loop and is
// the sole owner of everything registered with it; only post() and stop() may be called by others.
#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "os/clock.hh"
#include "os/fd.hh"

namespace godwit::os {

class Loop final {
 public:
  using Task = std::move_only_function<void()>;
  // Receives the epoll event bits (EPOLLIN | EPOLLOUT | EPOLLHUP | EPOLLERR).
  using Handler = std::move_only_function<void(std::uint32_t events)>;

  // Registration of a descriptor; ends when destroyed. The descriptor must outlive it.
  class Watch final {
   public:
    Watch() = default;
    Watch(Watch&& other) noexcept { *this = std::move(other); }
    Watch& operator=(Watch&& other) noexcept;
    ~Watch() { reset(); }
    void reset();
    void set_events(std::uint32_t events);  // EPOLLIN and/or EPOLLOUT; level-triggered
    explicit operator bool() const { return loop_ != nullptr; }

   private:
    friend class Loop;
    Watch(Loop* loop, int fd, std::uint64_t key) : loop_(loop), fd_(fd), key_(key) {}
    Loop* loop_ = nullptr;
    int fd_ = -1;
    std::uint64_t key_ = 0;
  };

  // A one-shot timer; cancelled when destroyed.
  class Timer final {
   public:
    Timer() = default;
    Timer(Timer&& other) noexcept { *this = std::move(other); }
    Timer& operator=(Timer&& other) noexcept;
    ~Timer() { reset(); }
    void reset();
    explicit operator bool() const { return loop_ != nullptr; }

   private:
    friend class Loop;
    Timer(Loop* loop, Instant due, std::uint64_t key) : loop_(loop), due_(due), key_(key) {}
    Loop* loop_ = nullptr;
    Instant due_{};
    std::uint64_t key_ = 0;
  };

  Loop();
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  [[nodiscard]] Watch watch(const Fd& fd, std::uint32_t events, Handler handler);
  [[nodiscard]] Timer at(Instant due, Task task);
  [[nodiscard]] Timer after(Nanoseconds delay, Task task);
  // Calls `handler(signal)` in the loop for each of `signals`, which are blocked in this thread and
  // those it makes afterwards.
  [[nodiscard]] Watch on_signals(const std::vector<int>& signals,
                                 std::move_only_function<void(int)> handler);

  void post(Task task);  // any thread; runs in the loop, in order
  void stop();           // any thread; run() returns
  void run();
  // One round: waits at most `limit`, runs what is due. For tests and for nested waits in tools.
  void run_once(Nanoseconds limit);

  // How long the rounds took, without the waiting: what everything else in this thread waited.
  static constexpr std::array<Nanoseconds, 4> kRoundBounds = {milliseconds(1), milliseconds(10),
                                                              milliseconds(100), seconds(1)};
  struct Stats {
    std::uint64_t rounds = 0;
    Nanoseconds busy{};
    std::array<std::uint64_t, kRoundBounds.size()> within{};  // by the bound it stayed within
  };
  const Stats& stats() const { return stats_; }

  Instant now() const { return clock_.now(); }
  const Clock& clock() const { return clock_; }

 private:
  struct Watched {
    Handler handler;
  };

  void remove(int fd, std::uint64_t key);
  void count_round(Instant began);
  void run_posted();
  void run_timers();
  Nanoseconds until_next_timer(Nanoseconds limit) const;

  MonotonicSystemClock clock_;
  Fd epoll_;
  Fd wake_;
  std::uint64_t next_key_ = 1;
  std::map<std::uint64_t, std::shared_ptr<Watched>> watched_;
  std::map<std::pair<Instant, std::uint64_t>, Task> timers_;
  std::vector<Fd> signal_fds_;
  Stats stats_;
  std::mutex posted_mutex_;
  std::vector<Task> posted_;
  bool stopping_ = false;  // guarded by posted_mutex_
};

}  // namespace godwit::os
