#include "lab/guest/dirty_disk.hh"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "lab/guest/pattern.hh"

namespace godwit::lab {

void DirtyDisk::Free::operator()(std::uint64_t* words) const { std::free(words); }

DirtyDisk::DirtyDisk(const std::string& path, std::uint64_t bytes_per_second)
    : fd_(::open(path.c_str(), O_RDWR | O_DIRECT | O_DSYNC | O_CLOEXEC)),
      bytes_per_second_(bytes_per_second),
      block_(static_cast<std::uint64_t*>(std::aligned_alloc(kBlockBytes, kBlockBytes))),
      generations_(kBlocks) {
  if (fd_ < 0) {
    std::perror(path.c_str());
    std::exit(1);
  }
  thread_ = std::thread([this] { run(); });
}

DirtyDisk::~DirtyDisk() {
  ends_ = true;
  thread_.join();
  ::close(fd_);
}

void DirtyDisk::run() {
  using Clock = std::chrono::steady_clock;
  const auto interval = std::chrono::nanoseconds(1'000'000'000 * kBlockBytes / bytes_per_second_);
  auto due = Clock::now();
  while (!ends_) {
    const auto begun = Clock::now();
    write_one();
    const auto took = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - begun);
    keep_time(static_cast<std::uint64_t>(took.count()));
    check_if_asked();
    due = std::max(due + interval, Clock::now() - interval);
    std::this_thread::sleep_until(due);
  }
}

void DirtyDisk::keep_time(std::uint64_t us) {
  const std::lock_guard lock(times_mutex_);
  if (times_us_.size() < kTimes) {
    times_us_.push_back(us);
  } else {
    times_us_[next_time_++ % kTimes] = us;
  }
}

void DirtyDisk::forget_times() {
  const std::lock_guard lock(times_mutex_);
  times_us_.clear();
  next_time_ = 0;
}

std::uint64_t DirtyDisk::percentile_us(double part) const {
  std::vector<std::uint64_t> times;
  {
    const std::lock_guard lock(times_mutex_);
    times = times_us_;
  }
  if (times.empty()) return 0;
  const double last = part * static_cast<double>(times.size() - 1);
  const auto at = times.begin() + static_cast<std::ptrdiff_t>(last);
  std::ranges::nth_element(times, at);
  return *at;
}

void DirtyDisk::write_one() {
  const std::size_t number = next_word(random_) % kBlocks;
  if (!is_intact(number)) ++damaged_;
  std::uint64_t state = seed_of(number, ++generations_[number]);
  for (std::size_t i = 0; i < kWords; ++i) block_[i] = next_word(state);
  const auto at = static_cast<off_t>(number * kBlockBytes);
  if (::pwrite(fd_, block_.get(), kBlockBytes, at) != static_cast<ssize_t>(kBlockBytes)) {
    ++damaged_;
  }
  ++written_;
}

bool DirtyDisk::is_intact(std::size_t number) {
  if (generations_[number] == 0) return true;
  const auto at = static_cast<off_t>(number * kBlockBytes);
  if (::pread(fd_, block_.get(), kBlockBytes, at) != static_cast<ssize_t>(kBlockBytes)) {
    return false;
  }
  std::uint64_t state = seed_of(number, generations_[number]);
  for (std::size_t i = 0; i < kWords; ++i) {
    if (block_[i] != next_word(state)) return false;
  }
  return true;
}

void DirtyDisk::check_if_asked() {
  if (!is_check_asked_) return;
  for (std::size_t i = 0; i < kBlocks; ++i) {
    if (!is_intact(i)) ++damaged_;
  }
  const std::lock_guard lock(check_mutex_);
  is_check_asked_ = false;
  checked_.notify_all();
}

void DirtyDisk::check_all() {
  std::unique_lock lock(check_mutex_);
  is_check_asked_ = true;
  checked_.wait(lock, [this] { return !is_check_asked_; });
}

}  // namespace godwit::lab
