#pragma once
// Writes to memory at a chosen rate, in pages, round a working set, with contents that can be
// checked: a page's words follow from its number and from how often it was written. Each page is
// checked before it is written again; check_all() looks at all of them.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace godwit::lab {

class DirtyMemory final {
 public:
  static constexpr std::size_t kPageBytes = 4096;
  // Behind schedule (the vm was slow or paused) no more than this is made up for.
  static constexpr std::chrono::milliseconds kMostArrears{20};

  DirtyMemory(std::size_t working_set_bytes, std::uint64_t bytes_per_second);

  void set_rate(std::uint64_t bytes_per_second) { bytes_per_second_ = bytes_per_second; }
  // Writes what is due by `now` (any monotonic clock, from the first call on).
  void tick(std::chrono::nanoseconds now);

  std::uint64_t pages_written() const { return pages_written_; }
  std::uint64_t damaged_pages() const { return damaged_; }
  // Checks every page; returns the total of damaged ones seen so far.
  std::uint64_t check_all();
  std::size_t bytes() const { return generations_.size() * kPageBytes; }
  std::uint64_t* page(std::size_t number) { return words_.data() + number * kWords; }

 private:
  static constexpr std::size_t kWords = kPageBytes / sizeof(std::uint64_t);

  void write(std::size_t number);
  bool is_intact(std::size_t number);

  std::uint64_t bytes_per_second_;
  std::vector<std::uint64_t> words_;
  std::vector<std::uint32_t> generations_;
  std::size_t next_ = 0;
  std::chrono::nanoseconds last_{-1};
  std::uint64_t credit_ = 0;  // bytes x nanoseconds per second not yet written
  std::uint64_t pages_written_ = 0;
  std::uint64_t damaged_ = 0;
};

}  // namespace godwit::lab
