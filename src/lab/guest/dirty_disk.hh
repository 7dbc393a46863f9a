#pragma once
// Writes to a disk at a chosen rate, block by block at random, each on stable storage before the
// next, and checks what it reads against memory: a block's words follow from its number and from
// how often it was written, which memory knows. After a move that lost a write, or made one twice,
// the two do not agree. A thread of its own, as each write waits; it also does the checks, between
// two writes: for a lock that it takes again at once others would wait for as long as the disk is
// slower than the rate.
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace godwit::lab {

class DirtyDisk final {
 public:
  static constexpr std::size_t kBlockBytes = 4096;
  static constexpr std::size_t kBlocks = 8192;  // 32 MiB from the front
  static constexpr std::size_t kTimes = 65536;

  // A block device or a file, as large as that at least.
  DirtyDisk(const std::string& path, std::uint64_t bytes_per_second);
  ~DirtyDisk();

  std::uint64_t written() const { return written_; }  // blocks
  std::uint64_t damaged() const { return damaged_; }
  // How long writes took since times were forgotten, the last kTimes of them; 0: there was none.
  // `part` of them took no longer: 0.5 gives the median, 1 the slowest.
  std::uint64_t percentile_us(double part) const;
  void forget_times();
  // Has every block read that was written, and waits for that.
  void check_all();

 private:
  struct Free {
    void operator()(std::uint64_t* words) const;
  };
  static constexpr std::size_t kWords = kBlockBytes / sizeof(std::uint64_t);

  void run();
  void write_one();
  void check_if_asked();
  void keep_time(std::uint64_t us);
  bool is_intact(std::size_t number);

  int fd_;
  std::uint64_t bytes_per_second_;
  // The thread's:
  std::unique_ptr<std::uint64_t[], Free> block_;  // aligned, for O_DIRECT
  std::vector<std::uint32_t> generations_;
  std::uint64_t random_ = 88172645463325252ULL;

  std::atomic<std::uint64_t> written_ = 0, damaged_ = 0;
  std::mutex check_mutex_;
  std::condition_variable checked_;
  std::atomic<bool> is_check_asked_ = false;
  mutable std::mutex times_mutex_;  // of these two; not held while a write waits
  std::vector<std::uint64_t> times_us_;
  std::size_t next_time_ = 0;  // to be replaced, once there are kTimes
  std::atomic<bool> ends_ = false;
  std::thread thread_;
};

}  // namespace godwit::lab
